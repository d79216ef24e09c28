"""Names of models on the Hugging Face hub, told apart from paths, and what of them has been fetched."""

import re
from collections.abc import Mapping
from pathlib import Path

from neva_recipes.config import expand_path, path_is
from neva_recipes.plan.huggingface.tensors import has_weight_files

__all__ = ["cached_models", "could_be_on_hub", "is_cached", "is_hub_name"]

_NAME = re.compile(r"(?!\.)[\w.-]+/[\w.-]+")
"""Owner and model; a path that begins with a dot, such as ./model, is none."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def is_hub_name(text: str) -> bool:
    """Return whether a text has the form of a name on the hub, `owner/model`."""
    return _NAME.fullmatch(text) is not None


def could_be_on_hub(text: str) -> bool:
    """Return whether a text that names nothing here may be a name on the hub.

    A text whose first part is a folder here is a path with a mistake in it: nobody waits for the hub's answer.
    """
    return is_hub_name(text) and not path_is(Path(text).parent, Path.is_dir)


def cached_models(environment: Mapping[str, str]) -> Path:
    """Return the folder in which Hugging Face's libraries keep the models that they have fetched.

    Args:
        environment: The variables of the process that fetches them.
    """
    if folder := environment.get("HF_HUB_CACHE"):
        return expand_path(folder)
    home = environment.get("HF_HOME")
    return expand_path(home or f"{environment.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface") / "hub"


def is_cached(name: str, cache: Path, *, weights: bool) -> bool:
    """Return whether a model on the hub has been fetched.

    Args:
        name: Its name, `owner/model`.
        cache: The folder of fetched models.
        weights: Whether its weights are needed; otherwise those of its files that make its tokenizer.
    """
    folder = cache / f"models--{name.replace('/', '--')}"
    try:
        newest = folder / "snapshots" / (folder / "refs" / "main").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return False
    if weights:  # a file that is on its way has this ending
        return has_weight_files(newest) and not any((folder / "blobs").glob("*.incomplete"))
    return any((newest / file).exists() for file in _TOKENIZER_FILES)
