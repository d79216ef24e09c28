"""Names of models on the Hugging Face hub, told apart from paths."""

import re
from pathlib import Path

from neva_recipes.config import path_is

__all__ = ["could_be_on_hub", "is_hub_name"]

_NAME = re.compile(r"(?!\.)[\w.-]+/[\w.-]+")
"""Owner and model; a path that begins with a dot, such as ./model, is none."""


def is_hub_name(text: str) -> bool:
    """Return whether a text has the form of a name on the hub, `owner/model`."""
    return _NAME.fullmatch(text) is not None


def could_be_on_hub(text: str) -> bool:
    """Return whether a text that names nothing here may be a name on the hub.

    A text whose first part is a folder here is a path with a mistake in it: nobody waits for the hub's answer.
    """
    return is_hub_name(text) and not path_is(Path(text).parent, Path.is_dir)
