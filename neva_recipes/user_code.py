"""Running code that users wrote, with their mistakes reported as one line that names the place."""

import functools
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from neva_recipes.config import RecipeError, UserError, path_is

__all__ = ["load_python_file", "reporting_mistakes"]

_MISTAKES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What a mistake in a Python file raises; anything else is not ours to explain."""


@contextmanager
def reporting_mistakes(source: str) -> Iterator[None]:
    """Turn an exception of the user's code into a `RecipeError` that starts with `source` and the line.

    Raises:
        RecipeError: The code raised an exception that was not already a clear `UserError`.
    """
    try:
        yield
    except UserError:
        raise
    except _MISTAKES as error:
        if isinstance(error, SyntaxError):
            file, line, message = error.filename or source, error.lineno, error.msg
        else:
            file, line, message = source, _line_in(source, error), " ".join(str(error).split())
        where = f"{file}, line {line}" if line else file
        raise RecipeError(f"{where}: {type(error).__name__}: {message}") from error


def _line_in(source: str, error: BaseException) -> int | None:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == source]
    return lines[-1] if lines else None


def load_python_file(path: Path) -> ModuleType:
    """Return the module made by running a Python file, which may import files that lie beside it.

    A file is run once, until it is changed. Nothing is written: no compiled copy is kept.

    Raises:
        RecipeError: The file is not there, is not Python, or fails.
    """
    if path.suffix != ".py":
        raise RecipeError(f"{path}: expected a Python file whose name ends in .py")
    if not path_is(path, Path.is_file):
        raise RecipeError(f"{path}: no such file")
    status = path.stat()
    return _load(path.resolve(), status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=16)
def _load(resolved: Path, mtime_ns: int, size: int) -> ModuleType:
    # The prefix keeps a file called yaml.py from being taken for the library of that name.
    spec = importlib.util.spec_from_file_location(f"_recipes_file_{resolved.stem}", resolved)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    writes_bytecode = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(resolved.parent))
    sys.modules[spec.name] = module
    try:
        with reporting_mistakes(str(resolved)):
            spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(resolved.parent))
        sys.dont_write_bytecode = writes_bytecode
    return module
