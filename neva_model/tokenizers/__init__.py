"""Tokenizers: text in the data stays text; only templates make special tokens."""

from neva_model.tokenizers.loading import load_recipe_tokenizer, load_tokenizer, read_otherwise
from neva_model.tokenizers.tokenizer import Tokenizer

__all__ = ["Tokenizer", "load_recipe_tokenizer", "load_tokenizer", "read_otherwise"]
