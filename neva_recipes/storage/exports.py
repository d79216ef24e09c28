"""Exported Hugging Face directories: digests of their files, source checkpoint, and conversation template.

These are stored in a separate file, which other programs ignore.
"""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from neva_recipes.config import CheckpointError, PlainTable
from neva_recipes.storage.digests import digest_of, digests_of, files_below, wrong_file

__all__ = [
    "DIGESTS_FILE",
    "TrainedWith",
    "cannot_be_written",
    "export_digests",
    "exported_checkpoint",
    "exported_training",
    "require_exported_file",
    "require_new",
    "require_new_directory",
    "unfinished_export",
    "what_is_wrong_with_export",
    "write_digests",
    "writing_errors",
]

DIGESTS_FILE = "digests.json"

_CHECKPOINT, _TRAINING = "checkpoint", "training"


class TrainedWith(NamedTuple):
    """What a user of a model must know about its training, beyond its weights and its tokenizer.

    Attributes:
        conv_template: Name of its conversation template; `None` for plain text.
    """

    conv_template: str | None


def require_new_directory(directory: Path) -> None:
    """Check that a directory does not exist and can be created, as far as this shows without writing.

    Raises:
        CheckpointError: It exists, or cannot be created.
    """
    require_new(directory, "directory")


def require_new(target: Path, kind: str) -> None:
    """Check that what will be written does not exist and can be created, as far as this shows without writing.

    Args:
        target: Its path.
        kind: file or directory, for the message.

    Raises:
        CheckpointError: It exists, or cannot be created.
    """
    try:
        if os.path.lexists(target):
            raise CheckpointError(f"{target}: exists already; name a {kind} that does not")
        # The missing folders will be created in the nearest existing one.
        above = next(path for path in target.absolute().parents if os.path.lexists(path))
        if not above.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(above, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        with suppress(FileNotFoundError):
            unfinished_export(target).lstat()  # raises if the name is too long
    except OSError as error:
        raise cannot_be_written(target, error) from None


def unfinished_export(directory: Path) -> Path:
    """Return the path at which this process writes something until it is complete."""
    return directory.with_name(f".{directory.name}.unfinished-{os.getpid()}")


def cannot_be_written(directory: Path, error: OSError) -> CheckpointError:
    """Return the error for a directory that could not be written."""
    return CheckpointError(f"{directory}: cannot be written: {error.strerror or error}")


@contextmanager
def writing_errors(target: Path) -> Iterator[None]:
    """Tell that a target cannot be written, around what only writes it.

    Raises:
        CheckpointError: It cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise cannot_be_written(target, error) from None


def write_digests(directory: Path, checkpoint: Path | None, training: TrainedWith) -> None:
    """Write the digests of all files of an export, as its last file.

    Args:
        directory: The directory.
        checkpoint: The exported checkpoint; `None` for a model without one.
        training: How the model was trained.

    Raises:
        OSError: A file cannot be read, or the digests cannot be written.
    """
    files = files_below(directory)
    digests = dict(zip(files, digests_of(files.values()).values(), strict=True))
    origin = {} if checkpoint is None else {_CHECKPOINT: str(checkpoint.absolute())}
    text = json.dumps({**origin, _TRAINING: training._asdict(), "files": digests}, indent=2) + "\n"
    (directory / DIGESTS_FILE).write_text(text, encoding="utf-8")


def exported_checkpoint(directory: Path) -> Path | None:
    """Return the checkpoint of an export, by its path at that time; `None` if unknown."""
    checkpoint = _record(directory).get(_CHECKPOINT)
    return Path(checkpoint) if isinstance(checkpoint, str) else None


def exported_training(directory: Path) -> TrainedWith | None:
    """Return how the model of an export was trained; `None` if unknown."""
    try:
        template = _record(directory)[_TRAINING]["conv_template"]
    except (KeyError, TypeError):
        return None
    return TrainedWith(template) if template is None or isinstance(template, str) else None


def _record(directory: Path) -> PlainTable:
    """Return the record of an export; empty for a directory of another program, or if the record is damaged."""
    try:
        record = json.loads((directory / DIGESTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def export_digests(directory: Path) -> dict[str, str]:
    """Return the digests of an export by file name; empty for a directory of another program.

    Raises:
        CheckpointError: They cannot be read.
    """
    source = directory / DIGESTS_FILE
    try:
        digests: dict[str, str] = dict(json.loads(source.read_text(encoding="utf-8"))["files"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{source}: cannot be read: {error}; export the model again") from None
    return digests


def what_is_wrong_with_export(directory: Path) -> str | None:
    """Return a line about the first damaged file of an export; `None` if all are intact."""
    try:
        return wrong_file(directory, export_digests(directory), DIGESTS_FILE)
    except CheckpointError as error:
        return str(error)


def require_exported_file(file: Path) -> None:
    """Check a file of weights if its directory, or the one above it, has a digest of it.

    Raises:
        CheckpointError: The file is not as it was exported.
    """
    own, above = export_digests(file.parent), export_digests(file.parent.parent)
    expected = own.get(file.name, above.get(f"{file.parent.name}/{file.name}"))
    if expected is not None and digest_of(file) != expected:
        raise CheckpointError(
            f"{file}: is damaged: its digest is not that of {DIGESTS_FILE}; export the model again (where the file was "
            f"changed on purpose, remove {DIGESTS_FILE})"
        )
