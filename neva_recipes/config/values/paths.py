"""Paths in fields and on command lines: which machine they belong to, and what `~` and relative names mean."""

import errno
import os
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Generic, Literal, TypeVar

from neva_recipes.config.errors import RunError

Read = TypeVar("Read")
Written = TypeVar("Written")

__all__ = [
    "HerePath",
    "HerePaths",
    "OptionalPathField",
    "OptionalPathsField",
    "PathField",
    "PathOn",
    "PathsField",
    "StageOutput",
    "TherePath",
    "expand_path",
    "is_here_path",
    "local_path",
    "make_folder_of",
    "path_is",
]


@dataclass(frozen=True)
class PathOn:
    """A string that is a path of some machine.

    Attributes:
        machine: `this` machine: `~` is the home folder, and a relative name starts in the command's current folder.
            `another` machine, a node or a container: the path is passed on unchanged, so `~` is refused. `both`:
            SOURCE:TARGET, a path here and a path there.
        description: Its description in messages.
    """

    machine: Literal["this", "another", "both"]
    description: str

    def accepts(self, value: str) -> bool:
        """Return whether `value` is a valid path of this kind."""
        return self.machine != "another" or not value.startswith("~")

    def __str__(self) -> str:
        return self.description


HerePath = Annotated[str, PathOn("this", "a path")]
"""A path of this machine, or a name from elsewhere, such as the Hugging Face hub."""

HerePaths = HerePath | list[HerePath]
"""One path of this machine or several; `listed_paths` returns them."""

TherePath = Annotated[str, PathOn("another", "a path of the node or container (~ stands for nothing there)")]
"""A path on a node or in a container."""


@dataclass(frozen=True)
class StageOutput:
    """Placeholder in a field for the output of a stage, until the pipeline has a directory.

    Attributes:
        stage: Name of the stage.
        file: A file in the folder that the stage makes, as `output / "train.idx"` says; `None` means all of it.
    """

    stage: str
    file: str | None = None

    def __str__(self) -> str:
        return f"{self.stage}.output" + ("" if self.file is None else f"/{self.file}")

    def __truediv__(self, file: str) -> "StageOutput":
        return StageOutput(self.stage, file if self.file is None else f"{self.file}/{file}")

    def in_folder(self, output: str) -> str:
        """Return the path that stands here once the stage has its output.

        Args:
            output: Path of the stage's whole output.
        """
        return output if self.file is None else f"{output}/{self.file}"


# A field for paths holds texts, and a draft takes a `Path` or the output of a stage too: to a type checker it has one
# type for reading and another for assignment. At run time it has the annotation that the validator reads.
if TYPE_CHECKING:

    class _Field(Generic[Read, Written]):
        def __get__(self, node: object, cls: object) -> Read: ...
        def __set__(self, node: object, value: Written) -> None: ...

    _One = str | os.PathLike[str] | StageOutput
    _Several = list[str] | list[Path] | list[StageOutput] | list[str | os.PathLike[str]] | list[_One]

    PathField = _Field[str, _One]
    PathsField = _Field[str | list[str], _One | _Several]
    OptionalPathField = _Field[str | None, _One | None]
    OptionalPathsField = _Field[str | list[str] | None, _One | _Several | None]
else:
    PathField = HerePath
    PathsField = HerePaths
    OptionalPathField = HerePath | None
    OptionalPathsField = HerePaths | None


def is_here_path(annotation: object) -> bool:
    """Return whether a field takes a path of this machine."""
    members = typing.get_args(annotation) if not hasattr(annotation, "__metadata__") else (annotation,)
    rules = [rule for member in members for rule in getattr(member, "__metadata__", ())]
    return any(isinstance(rule, PathOn) and rule.machine == "this" for rule in rules)


def expand_path(name: str | os.PathLike[str]) -> Path:
    """Return the path that a name stands for on this machine; `~` is the home folder if there is one."""
    try:
        return local_path(name, "path")
    except RunError:  # no such user
        return Path(name)


def local_path(name: str | os.PathLike[str], what: str) -> Path:
    """Return the path that a name stands for on this machine; it need not exist yet.

    Args:
        name: The name.
        what: The field or option that it was given for, for the message.

    Raises:
        RunError: `~` names an unknown user; a folder of that name would be made instead.
    """
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise RunError(f"{what}={os.fspath(name)}: there is no such user, and so no home folder") from None


def path_is(path: Path, kind: Callable[[Path], bool] = Path.exists) -> bool:
    """Return whether a path exists and is of a kind, such as `Path.is_dir`; False if it cannot be looked up."""
    try:
        return kind(path)
    except (OSError, ValueError):  # a name too long, or a folder without search permission
        return False


def make_folder_of(file: Path) -> None:
    """Make the folder of a file that a user has named and that will be written.

    Raises:
        OSError: The folder cannot be made.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(file.parent)) from None
