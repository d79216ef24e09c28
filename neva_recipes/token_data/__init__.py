"""Makes indexed datasets of tokens out of text: what `nemo-run data text` does."""

from neva_recipes.token_data.making import Progress, TokenData, make_token_data
from neva_recipes.token_data.settings import PARTS, Counts

__all__ = ["PARTS", "Counts", "Progress", "TokenData", "make_token_data"]
