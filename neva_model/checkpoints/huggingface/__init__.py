"""Reads weights from Hugging Face directories and writes them to such directories."""

from neva_model.checkpoints.huggingface.source import find_directory, is_huggingface_directory

__all__ = ["find_directory", "is_huggingface_directory"]
