"""Writes a tokenizer whole or not at all."""

from collections.abc import Mapping
from pathlib import Path

from neva_recipes.storage.whole import copy_file, written_whole

__all__ = ["write_directory", "write_file"]


def write_file(target: Path, content: bytes) -> None:
    """Write a file, which gets its name only when it is complete.

    Raises:
        CheckpointError: It exists or cannot be written.
    """
    with written_whole(target, "file") as path:
        path.write_bytes(content)


def write_directory(target: Path, contents: Mapping[str, bytes], copied: Mapping[str, Path]) -> None:
    """Write a directory, which gets its name only when it is complete.

    Args:
        target: The directory.
        contents: The content of each file by name.
        copied: Further files by their paths in it; one of the contents takes the place of a file of its name.

    Raises:
        CheckpointError: It exists or cannot be written, or a file that is copied cannot be read.
    """
    with written_whole(target, "directory") as folder:
        for name, path in copied.items():
            if name not in contents:
                (folder / name).parent.mkdir(exist_ok=True)
                copy_file(path, folder / name)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
