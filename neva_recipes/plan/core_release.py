"""The releases of Megatron-Core that this project works with, and the one that is installed here."""

import functools
import sys

__all__ = ["CORE_RELEASES", "core_for_this_python", "installed_core"]

CORE_RELEASES = ("0.16.1", "0.19.2")
"""The releases that the model's use of Core was written and tested for, oldest first; each works on any Python.

pyproject.toml asks for the newest that a Python can have.
"""


def core_for_this_python() -> str:
    """Return the release that pyproject.toml asks for on this Python: the newer ones are for Python 3.12 and later."""
    return CORE_RELEASES[-1] if sys.version_info >= (3, 12) else CORE_RELEASES[0]


@functools.cache
def installed_core() -> str | None:
    """Return the release of Megatron-Core that is installed here; `None` if there is none."""
    # It takes as long to import as the whole command, and hardly any recipe asks.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("megatron-core")
    except PackageNotFoundError:
        return None
