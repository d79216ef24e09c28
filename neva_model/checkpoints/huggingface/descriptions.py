"""The files of a Hugging Face directory that are no weights: settings, tokenizer, templates, licence."""

from pathlib import Path

__all__ = ["is_description"]

_ENDINGS = {".json", ".jinja", ".md", ".txt", ".py", ".model", ".tiktoken", ""}


def is_description(path: Path) -> bool:
    """Return whether a file of a directory says something of its model, and is no weights and no index of weights."""
    # Only visible files: caches and version control are nothing of the model.
    is_meant = path.suffix in _ENDINGS and not path.name.startswith(".") and not path.name.endswith(".index.json")
    return is_meant and path.is_file()
