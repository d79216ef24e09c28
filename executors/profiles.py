"""Profiles: named executors with preset fields, written once per cluster in TOML or Python.

    [juwels]
    kind = "slurm"
    partition = "booster"
    env = { NCCL_DEBUG = "WARN" }

Such tables are read from `nemo-run/executors.toml` in the user's configuration folder and from `executors.toml` in the
current folder. In Python a profile is a function without parameters that is annotated to return a `Draft` of an
executor.
"""

import datetime
import inspect
import os
import re
import tomllib
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from types import FunctionType
from typing import Any

import fiddle as fdl

from executors.base import Executor
from executors.kinds import hint_of_recipe, kind_class
from neva_recipes.config import (
    DraftNode,
    RecipeError,
    UserError,
    check_value,
    config,
    field_types,
    makes_drafts,
    suggest,
    value_from,
)
from neva_recipes.secrets import secret_names
from neva_recipes.user_code import call_user_function, load_python_file, without_cache

__all__ = ["Profile", "profile_files", "python_profiles", "toml_profiles"]


@dataclass(frozen=True)
class Profile:
    """A named executor with preset fields.

    Attributes:
        name: Its name after `--executor`.
        origin: Where it comes from, as shown to users.
        load: Returns a new config of it.
        remarks: Lines to show to users of the profile.
    """

    name: str
    origin: str
    load: Callable[[], DraftNode]
    remarks: tuple[str, ...] = ()


def profile_files() -> list[Path]:
    """Return the paths that profiles are read from, the user's own first; the files need not exist."""
    chosen = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    base = chosen if chosen.is_absolute() else _home() / ".config"
    return [base / "nemo-run" / "executors.toml", Path("executors.toml")]


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # no HOME and no passwd entry, as in some containers
        return Path("/")


def toml_profiles() -> dict[str, Profile]:
    """Return the profiles of the user's and the project's file by name; the project's replaces one of the same name.

    A table is checked only when its profile is loaded, so that a mistake in one profile does not affect others.

    Raises:
        RecipeError: A file cannot be read, is not TOML, or holds more than tables.
    """
    return {profile.name: profile for path in profile_files() for profile in _profiles_of(path)}


def _profiles_of(path: Path) -> Iterator[Profile]:
    try:
        path.stat()
    except OSError:
        return  # missing, or in a folder that the user may not read
    try:
        text = path.read_text(encoding="utf-8-sig")
        tables = tomllib.loads(text)
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: is not UTF-8 at byte {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise RecipeError(f"{path}{f', line {line[1]}' if line else ''}: is not TOML: {error}") from None
    for name, table in tables.items():
        where = _place(path, text, name)
        if not isinstance(table, dict):
            raise RecipeError(f'{where}: {name} is outside of every table: expected [NAME] with kind = "..." below it')
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise RecipeError(f"{where}: [{name!r}]: a profile's name is made of letters, digits, '.', '_' and '-'")
        remarks = tuple(_remarks(path, where, name, table))
        yield Profile(name, str(path), partial(_config_of, path, text, name, table), remarks)


def _config_of(path: Path, text: str, name: str, table: Mapping[str, Any]) -> DraftNode:
    where = _place(path, text, name)
    if "kind" not in table:
        raise RecipeError(f'{where}: [{name}] has no kind: add kind = "slurm", or another one of nemo-run executors')
    try:
        cls: Any = kind_class(table["kind"])
    except UserError as error:
        raise RecipeError(f"{_place(path, text, name, 'kind')}: [{name}] kind: {error}") from None
    types = field_types(cls)
    executor = config(cls)
    for key, value in table.items():
        if key == "kind":
            continue
        where = _place(path, text, name, key)
        if key not in types:
            hint = hint_of_recipe(key) or suggest(key, types) or f"; expected one of {', '.join(types)}"
            raise RecipeError(f"{where}: [{name}] {key}: {cls.kind} executors have no such field{hint}")
        part = value
        try:
            for item in value if isinstance(value, dict) else ():  # check each item alone, to report its line
                where, part = _place(path, text, name, key, item), {item: value[item]}
                check_value(types[key], part, key)
            part = value
            checked = check_value(types[key], value, key)
        except RecipeError as error:
            raise RecipeError(f"{where}: [{name}] {_with_quotes(str(error), types[key], key, part)}") from None
        with value_from(str(path), _line_of(text, name, key)):
            setattr(executor, key, checked)
    return executor


def _with_quotes(message: str, annotation: object, key: str, value: object) -> str:
    """Return an error message, with a hint if quotes would make the value valid: `time = 30` for `time = "30"`.

    Args:
        message: The error message.
        annotation: What the field accepts.
        key: The field.
        value: Its value, or a dict of the single entry that was checked.
    """
    name, held = next(iter(value.items())) if isinstance(value, dict) and value else (key, value)
    if isinstance(held, bool) or not isinstance(held, int | datetime.time):
        return message
    message = message.replace(repr(held), str(held))  # TOML has a type for times
    try:
        check_value(annotation, {name: str(held)} if isinstance(value, dict) else str(held), key)
    except RecipeError:
        return message
    return f'{message}: put it in quotes, {name} = "{held}"'


def _remarks(path: Path, where: str, name: str, table: Mapping[str, object]) -> Iterator[str]:
    env = table.get("env")
    variables = {key: value for key, value in env.items() if isinstance(value, str)} if isinstance(env, dict) else {}
    secrets = secret_names(variables)
    if secrets and path.stat().st_mode & 0o077:
        yield f"{where}: [{name}] holds {', '.join(secrets)}, and others may read that file: chmod 600 {path}"


def _place(path: Path, text: str, *keys: str) -> str:
    line = _line_of(text, *keys)
    return f"{path}, line {line}" if line else str(path)


def _line_of(text: str, *keys: str) -> int:
    """Return the line, counted from 1, of a table or key; of the nearest enclosing table or key if it has none itself.

    Searches the lines for `[a.b]` and `c = ...`, because tomllib keeps no line numbers.
    """
    table: tuple[str, ...] = ()
    found = depth = 0
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[([^\[\]]+)\]\s*(#.*)?$", line)
        setting = header or re.match(r"([^=#\[\]]+)=", line)
        if setting is None or not (named := _keys_in(setting[1])):
            continue
        here = named if header else (*table, *named)
        table = named if header else table
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(here, keys, strict=False)))
        if shared > depth:
            found, depth = number, shared
    return found


def _keys_in(dotted: str) -> tuple[str, ...]:
    """Return the parts of a dotted TOML key; empty if the text is no key."""
    try:
        nested: Any = tomllib.loads(f"{dotted} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    keys = []
    while isinstance(nested, dict):
        [(key, nested)] = nested.items()
        keys.append(key)
    return tuple(keys)


def python_profiles(path: Path) -> dict[str, Profile]:
    """Return the profiles of a Python file by name: its public functions annotated to return a Draft of an executor.

    Raises:
        RecipeError: The file cannot be loaded.
    """
    module = load_python_file(path)
    return {
        name: Profile(name, str(path), partial(_call, function, name))
        for name, function in zip(vars(module), map(without_cache, vars(module).values()), strict=True)
        if type(function) is FunctionType
        and not name.startswith("_")
        and function.__module__ == module.__name__
        and _returns_executor(function)
    }


def _returns_executor(function: Callable[..., object]) -> bool:
    try:
        annotation = typing.get_type_hints(function).get("return")
    except (NameError, TypeError, AttributeError):
        return False
    # One that returns a finished executor is an error when the profile is used.
    return makes_drafts(annotation, lambda cls: issubclass(cls, Executor))


def _call(function: Callable[..., object], name: str) -> DraftNode:
    file = inspect.getfile(function)
    try:
        executor = call_user_function(function)
    except UserError as error:
        text = str(error)
        raise RecipeError(text if text.startswith(file) else f"{file}: {name}: {text}") from None
    cls = fdl.get_callable(executor) if isinstance(executor, fdl.Buildable) else None
    if not (isinstance(cls, type) and issubclass(cls, Executor)):
        kind = f"a value of type {type(executor).__name__}" if cls is None else f"a Draft of {cls.__name__}"
        raise RecipeError(f"{file}: {name} returned {kind}: expected a Draft of an executor")
    if kind_class(cls.kind) is not cls:
        raise RecipeError(f"{file}: {name}: {cls.__name__} is not the executor that {cls.kind!r} names")
    return typing.cast("DraftNode", executor)
