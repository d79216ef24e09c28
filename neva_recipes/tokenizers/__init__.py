"""Tools that make tokenizers: tokens added to a SentencePiece model."""

from neva_recipes.tokenizers.adding import EXTRA_TOKENS, Addition, add_tokens

__all__ = ["EXTRA_TOKENS", "Addition", "add_tokens"]
