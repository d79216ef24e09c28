"""Runs code of users: turns its errors into one line with the place, and redirects its output.

Every command imports files of recipes, profiles and packages. Whatever they print, read or end then, the document on
standard output stays intact.
"""

import contextlib
import functools
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import fiddle as fdl

from neva_recipes.config import ConfigNode, RecipeError, UserError, expand_path, field_types, owned, path_is, suggest
from neva_recipes.terminal import tell
from neva_recipes.user_code._unchanged import modules_unchanged
from neva_recipes.user_code._user_output import EndedAtOnce, HeldErrors, kept_apart, place_of, text_of

__all__ = [
    "Files",
    "PackageObject",
    "call_user_function",
    "each_file_once",
    "load_python_file",
    "package_objects",
    "reporting_mistakes",
    "without_cache",
]

Files = str | Path | Iterable[str | Path]
"""A Python file of the user, or several."""

_UNREADABLE_METADATA = (ValueError, TypeError, OSError)
"""Exceptions of importlib.metadata for package metadata that is invalid or cannot be read."""


@contextlib.contextmanager
def reporting_mistakes(source: str, *, importing: bool = False) -> Iterator[None]:
    """Turn exceptions of the user's code into a `RecipeError` that starts with `source` and the line.

    Output of the code goes to standard error, each line with its place; a changed working directory is restored.

    Args:
        source: The file of the code, or a description if the file is unknown.
        importing: Whether the code is only imported; then it must not read input or end the program.

    Raises:
        RecipeError: The code raised an exception that was not already a clear `UserError`, or ended the program.
    """
    errors = HeldErrors(sys.stderr)
    try:
        with kept_apart(source, errors if importing else None):
            yield
    except UserError:
        raise
    except SystemExit as error:
        said = errors.take().strip().rpartition("\n")[2]
        code = "" if error.code is None else repr(error.code)
        call = "os._exit" if isinstance(error, EndedAtOnce) else "sys.exit"
        what = f"ends the program by {call}({code})" + (f" ({said})" if said else "")
        remedy = (
            'every command imports it: move that below if __name__ == "__main__"'
            if importing
            else "raise an exception that says what is wrong"
        )
        raise RecipeError(f"{place_of(source, traceback.walk_tb(error.__traceback__))} {what}; {remedy}") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # such as pytest's exception to skip a module
        if isinstance(error, SyntaxError):
            where = f"{error.filename or source}, line {error.lineno}:" if error.lineno else f"{source}:"
            message = error.msg
        else:
            where = f"{place_of(source, traceback.walk_tb(error.__traceback__))}:"
            message = _unknown_field(error) or text_of(error)
        raise RecipeError(f"{where} {type(error).__name__}{': ' if message else ''}{message}") from error
    finally:
        errors.let_go()


def _unknown_field(error: BaseException) -> str:
    """Return a message for an unknown field of a config; Fiddle's own prints the whole recipe, or every name."""
    if not isinstance(error, AttributeError):
        return ""
    group, name = _field_set(error) or (error.obj, error.name)
    cls: Any = fdl.get_callable(group) if isinstance(group, fdl.Buildable) else None
    is_ours = isinstance(cls, type) and issubclass(cls, ConfigNode)
    if not is_ours or not name or name in field_types(cls):
        return ""
    hint = suggest(name, field_types(cls)) or f"; expected one of {', '.join(field_types(cls))}"
    return f"{cls.__name__} has no field {name!r}{hint}"


def _field_set(error: AttributeError) -> tuple[object, str] | None:
    """Return the config and the name of a field whose setting failed; Python itself notes them of reading alone."""
    setter = fdl.Buildable.__setattr__.__code__
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is setter:
            return frame.f_locals["self"], frame.f_locals["name"]
    return None


def each_file_once(files: Files) -> list[Path]:
    """Return the paths of files without duplicates; of several names for one file, the last counts."""
    given = [files] if isinstance(files, str | Path) else files
    return list({path.resolve(): path for path in map(expand_path, given)}.values())


def load_python_file(path: Path) -> ModuleType:
    """Return the module of a Python file, which may import files beside it.

    A file is run only once unless it changes. Writes no bytecode files.

    Raises:
        RecipeError: The file does not exist, is not Python, or fails.
    """
    if path.suffix != ".py":
        raise RecipeError(f"{path}: expected a Python file whose name ends in .py")
    if not path_is(path, Path.is_file):
        raise RecipeError(f"{path}: no such file")
    status = path.stat()
    return _load(path.resolve(), status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=16)
def _load(resolved: Path, mtime_ns: int, size: int) -> ModuleType:
    # The prefix keeps a file called yaml.py from replacing the library of this name.
    spec = importlib.util.spec_from_file_location(f"_recipes_file_{resolved.stem}", resolved)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    writes_bytecode = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(resolved.parent))
    sys.modules[spec.name] = module
    try:
        with reporting_mistakes(str(resolved), importing=True):
            spec.loader.exec_module(module)
    finally:
        with contextlib.suppress(ValueError):  # the file may have removed it itself
            sys.path.remove(str(resolved.parent))
        sys.dont_write_bytecode = writes_bytecode
    return module


def call_user_function(function: Callable[..., object], values: Mapping[str, object] | None = None) -> Any:
    """Return a copy of the result of a user's function.

    Every call sees the configs, lists, dicts and variables of its modules as they were after the import: changes by one
    call do not reach another, so a recipe does not depend on recipes made before it.

    Args:
        function: The function.
        values: Its arguments by name.

    Raises:
        RecipeError: The function fails; the message starts with its file and the line.
    """
    with reporting_mistakes(inspect.getfile(inspect.unwrap(function))), modules_unchanged(function):
        return owned(function(**(values or {})))


def without_cache(value: object) -> Any:
    """Return the function inside a `functools.cache` or `lru_cache`; any other value is returned unchanged.

    Each call must make a new object; with a cache, all calls would return the same one.
    """
    # Not isinstance: `__class__` of a user's object may be wrong or raise, but a cache has a reliable type.
    return value.__wrapped__ if type(value) is functools._lru_cache_wrapper else value


@dataclass(frozen=True)
class PackageObject:
    """An entry point of an installed package.

    Attributes:
        name: Its name.
        value: Its object, such as `mylab.recipes:digits`.
        package: Name of the package.
    """

    name: str
    value: str
    package: str

    def load(self, kind: str) -> Any:
        """Import the module and return the object.

        Args:
            kind: What the object should be, for messages.

        Raises:
            RecipeError: It cannot be imported, does not exist, or ends the program.
        """
        from importlib.metadata import EntryPoint

        with reporting_mistakes(f"{kind} {self.name} ({self.value})", importing=True):
            if EntryPoint.pattern.match(self.value) is None:
                raise RecipeError(f"{kind} {self.name}: {self.value!r}: expected MODULE:NAME")
            return EntryPoint(self.name, self.value, "").load()

    def version(self) -> str:
        """Return the version of the package; empty if it is not known."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            return str(version(self.package))
        except (PackageNotFoundError, *_UNREADABLE_METADATA, KeyError):
            return ""


def package_objects(group: str) -> tuple[PackageObject, ...]:
    """Return the entry points of installed packages, sorted by name; prints a warning about unreadable metadata.

    Args:
        group: Group of the entry points, such as `neva_recipes.recipes`.
    """
    return _package_objects(group, tuple(sys.path))


@functools.cache
def _package_objects(group: str, folders: tuple[str, ...]) -> tuple[PackageObject, ...]:
    """Read the metadata of all packages, once for each value of `sys.path`."""
    # importlib.metadata takes as long to import as everything else here, and built-in recipes do not need it.
    from importlib.metadata import distributions, entry_points

    try:
        points = list(entry_points(group=group))
    except _UNREADABLE_METADATA:  # one package with an invalid line hides all others
        points = []
        for distribution in distributions():
            try:
                points += [point for point in distribution.entry_points if point.group == group]
            except _UNREADABLE_METADATA as error:
                tell("warning", f"package {_package(distribution)}: entry_points.txt cannot be read: {error}")
    found = [PackageObject(point.name, point.value, _package(point.dist)) for point in points]
    return tuple(sorted(dict.fromkeys(found), key=lambda entry: entry.name))


def _package(distribution: Any) -> str:
    try:
        return str(distribution.name)
    except (AttributeError, KeyError, TypeError):  # None, or a distribution without metadata
        return "without a name"
