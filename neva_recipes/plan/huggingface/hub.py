"""Names of models on the Hugging Face hub, told apart from paths, and what of them has been fetched."""

import re
from collections.abc import Mapping
from pathlib import Path

from neva_recipes.config import expand_path, path_is
from neva_recipes.families.published import hub_shape
from neva_recipes.plan.huggingface.tensors import has_all_weights

__all__ = [
    "cached_models",
    "cached_snapshot",
    "could_be_on_hub",
    "has_known_sizes",
    "is_cached",
    "is_hub_name",
    "is_offline",
]

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


def is_offline(environment: Mapping[str, str]) -> bool:
    """Return whether the variables of a process keep Hugging Face's libraries from asking the hub."""
    # The older name counts if the newer one is not set; both keep the libraries off the network.
    set_to = environment.get("HF_HUB_OFFLINE") or environment.get("TRANSFORMERS_OFFLINE") or ""
    return set_to.upper() in ("1", "ON", "YES", "TRUE")


def cached_snapshot(name: str, cache: Path) -> Path | None:
    """Return the directory with those files of a model on the hub that have been fetched; `None` if none have.

    Args:
        name: Its name, `owner/model`.
        cache: The folder of fetched models.
    """
    folder = _folder(name, cache)
    try:
        newest = folder / "snapshots" / (folder / "refs" / "main").read_text().strip()
        return newest if newest.is_dir() else None
    except (OSError, UnicodeDecodeError):
        return None


def is_cached(name: str, cache: Path, *, weights: bool) -> bool:
    """Return whether a model on the hub has been fetched.

    Args:
        name: Its name, `owner/model`.
        cache: The folder of fetched models.
        weights: Whether its weights are needed; otherwise those of its files that make its tokenizer.
    """
    snapshot = cached_snapshot(name, cache)
    if snapshot is None:
        return False
    if weights:  # a file that is on its way has this ending
        on_its_way = any((_folder(name, cache) / "blobs").glob("*.incomplete"))
        return not on_its_way and has_all_weights(snapshot)
    return any((snapshot / file).exists() for file in _TOKENIZER_FILES)


def has_known_sizes(name: str, cache: Path) -> bool:
    """Return whether a model on the hub can be compared with a recipe: its config.json is here, or it is well known.

    Args:
        name: Its name, `owner/model`.
        cache: The folder of fetched models.
    """
    snapshot = cached_snapshot(name, cache)
    is_told = snapshot is not None and path_is(snapshot / "config.json", Path.is_file)
    return is_told or hub_shape(name) is not None


def _folder(name: str, cache: Path) -> Path:
    return cache / f"models--{name.replace('/', '--')}"
