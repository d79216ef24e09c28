"""Writes a content that is made once for all processes of a run, since samples are read at their offsets."""

from pathlib import Path

from neva_model.data._cache import build_once
from neva_recipes.config import RunError
from neva_recipes.sources.content import content_blocks, is_converted, is_made

__all__ = ["plain_file"]


def plain_file(path: Path, cache_folder: Path, state: tuple[str, ...]) -> Path:
    """Return a file with the content of a data file: the file itself, what it unpacks to, or its records as JSON lines.

    Args:
        path: The data file.
        cache_folder: Folder for a content that is made.
        state: The result of `data_file_state` for it.

    Raises:
        DataError: The file cannot be read, or is damaged.
        RunError: There is no space for a content that is made.
    """
    if not is_made(path):
        return path
    return build_once(cache_folder, ("unpacked", *state), ".unpacked", lambda target: _unpack(path, target))


def _unpack(path: Path, target: Path) -> None:
    done = "converted" if is_converted(path) else "unpacked"
    print(f"{path}: is {done} into {target.parent}", flush=True)
    try:
        with target.open("wb") as file:
            file.writelines(content_blocks(path))
    except OSError as error:
        raise RunError(f"{path}: cannot be {done} into {target.parent}: {error.strerror}") from None
