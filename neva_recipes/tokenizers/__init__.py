"""Tools that make tokenizers: tokens added to a SentencePiece model, and two tokenizers merged."""

from neva_recipes.tokenizers._union import Union
from neva_recipes.tokenizers.adding import EXTRA_TOKENS, Addition, add_tokens
from neva_recipes.tokenizers.merging import ChangedLine, Merger, OldText, merge

__all__ = ["EXTRA_TOKENS", "Addition", "ChangedLine", "Merger", "OldText", "Union", "add_tokens", "merge"]
