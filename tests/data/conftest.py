"""The fixtures of this folder."""

from tests.data.inputs import (
    byte_level_directory,
    byte_level_tokenizer,
    llama_directories,
    make_recipe,
    sentencepiece_model,
    sentencepiece_tokenizer,
)

__all__ = [
    "byte_level_directory",
    "byte_level_tokenizer",
    "llama_directories",
    "make_recipe",
    "sentencepiece_model",
    "sentencepiece_tokenizer",
]
