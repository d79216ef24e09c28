"""Makes indexed datasets of tokens out of text: what `nemo-run data text` does."""

from neva_recipes.token_data.dividing import Lacking, lacking_parts
from neva_recipes.token_data.making import Progress, TokenData, make_token_data
from neva_recipes.token_data.settings import PARTS, SEED, Counts, split_weights

__all__ = [
    "PARTS",
    "SEED",
    "Counts",
    "Lacking",
    "Progress",
    "TokenData",
    "lacking_parts",
    "make_token_data",
    "split_weights",
]
