"""The files of a Hugging Face directory that are no weights: settings, tokenizer, templates, licence."""

from pathlib import Path

from neva_recipes.tokenizers import TEMPLATES, template_files

__all__ = ["description_files", "other_folders"]

_ENDINGS = {".json", ".jinja", ".md", ".txt", ".py", ".model", ".tiktoken", ""}


def description_files(directory: Path) -> dict[str, Path]:
    """Return the files of a directory that say something of its model and are no weights, by their paths in it."""
    return {entry.name: entry for entry in sorted(directory.iterdir()) if _is_description(entry)} | template_files(
        directory
    )


def _is_description(path: Path) -> bool:
    # Only visible files: caches and version control are nothing of the model. An index says where weights are.
    is_meant = path.suffix in _ENDINGS and not path.name.startswith(".") and not path.name.endswith(".index.json")
    return is_meant and path.is_file()


def other_folders(directory: Path) -> list[str]:
    """Return the names of the visible folders of a directory of which nothing is among its descriptions."""
    folders = (entry.name for entry in sorted(directory.iterdir()) if entry.is_dir())
    return [name for name in folders if name != TEMPLATES and not name.startswith(".")]
