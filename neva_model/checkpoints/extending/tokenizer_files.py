"""The files of a tokenizer that takes the place of another one."""

import shutil
from pathlib import Path

from neva_recipes.config import DataError
from neva_recipes.storage.whole import copy_file
from neva_recipes.tokenizers import TEMPLATES, template_files

__all__ = ["VOCABULARY_FILES", "copy_tokenizer", "remove_tokenizer"]

VOCABULARY_FILES = {"tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json"}
"""Files of a tokenizer that hold its vocabulary: those of another tokenizer take their place."""

_OTHER_FILES = {"tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "chat_template.json"}
"""Files that go with a tokenizer: they stay if the other one has none of its own."""


def copy_tokenizer(tokenizer: Path, name: str, before: Path, target: Path) -> None:
    """Copy the files of a tokenizer; what goes with it and it does not have comes from the one before.

    Args:
        tokenizer: Its file or directory.
        name: The name that the user gave for it.
        before: The file or directory of the tokenizer before; nothing goes with a file.
        target: The folder to copy into.

    Raises:
        DataError: It holds no tokenizer.
        OSError: A file cannot be read or written.
    """
    own: dict[str, Path] = {}
    if tokenizer.is_file():
        own["tokenizer.model"] = tokenizer
    else:
        names = VOCABULARY_FILES | _OTHER_FILES
        own = {name: tokenizer / name for name in names if (tokenizer / name).is_file()} | template_files(tokenizer)
        if not own.keys() & {"tokenizer.json", "tokenizer.model"}:
            raise DataError(f"tokenizer {name}: holds no tokenizer.json and no tokenizer.model")
    kept = {name: before / name for name in _OTHER_FILES if (before / name).is_file()}
    if not (tokenizer / TEMPLATES).is_dir():
        kept |= template_files(before)
    for name, file in {**kept, **own}.items():
        (target / name).parent.mkdir(exist_ok=True)
        copy_file(file, target / name)


def remove_tokenizer(folder: Path) -> None:
    """Remove a tokenizer from a folder, and what goes with it."""
    for name in VOCABULARY_FILES | _OTHER_FILES:
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / TEMPLATES, ignore_errors=True)
