"""Restores the modules of users' functions after each call, whatever the function has changed in them.

Searches for values wherever a module can hold them: in its variables, its classes and their instances, in defaults,
closures and attributes of its functions, and inside `functools.partial` and `functools.cache`.
"""

import contextlib
import copy
import functools
import gc
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from types import CellType, FunctionType, MethodType
from typing import Any

import fiddle as fdl

__all__ = ["modules_unchanged"]

_MOST_ITEMS = 1000
"""A longer list or dict is considered data and not restored."""

_VALUES = (fdl.Buildable, type(None), bool, int, float, str, Path, list, tuple, dict, set)
"""Types of values that are restored. A dict of functions or classes is a registry: additions to it stay."""

_OURS = ("neva_recipes", "executors", "neva_model")
_INSTALLED = {"site-packages", "dist-packages"}
_STANDARD_LIBRARY = f"{Path(os.__file__).parent}/"


@contextlib.contextmanager
def modules_unchanged(function: Callable[..., object]) -> Iterator[None]:
    """Undo changes to configs, lists, dicts and variables with values in the modules around a function.

    These are its own module, those of its package, and all modules that are neither installed nor in the standard
    library. A cache of configs, lists or dicts that has grown is cleared, because the original content is unknown.
    """
    if function.__module__.partition(".")[0] in _OURS:
        yield  # functions of this project always make new objects
        return
    held = _Held(_namespaces(function))
    try:
        yield
    finally:
        for undo in held.undo:
            undo()


def _namespaces(function: Callable[..., object]) -> Iterator[dict[str, Any]]:
    package = function.__module__.partition(".")[0]
    for name, module in list(sys.modules.items()):
        top, file = name.partition(".")[0], getattr(module, "__file__", None) or ""
        is_installed = file.startswith(_STANDARD_LIBRARY) or not _INSTALLED.isdisjoint(file.split("/"))
        if file and top not in _OURS and (top == package or not is_installed):
            yield vars(module)


class _Held:
    """The objects in modules that a call can change.

    Args:
        namespaces: The namespaces of the modules.

    Attributes:
        undo: Functions that restore the present content of each object.
    """

    def __init__(self, namespaces: Iterable[dict[str, object]]) -> None:
        self.undo: list[Callable[[], None]] = []
        self._seen: dict[int, Any] = {}  # keeps the objects, because an id is reused when its object is deleted
        spaces = list(namespaces)
        self._modules = {space["__name__"] for space in spaces}
        self._waiting: list[Any] = []
        for space in spaces:
            self._add_names(space)
        while self._waiting:
            self._collect(self._waiting.pop())

    def _add(self, holder: object, undo: Callable[[], None] | None, inside: Iterable[object]) -> None:
        if id(holder) in self._seen:
            return
        self._seen[id(holder)] = holder
        if undo is not None:
            self.undo.append(undo)
        self._waiting.extend(inside)

    def _add_names(self, names: dict[str, object]) -> None:
        before = dict(names)
        self._add(names, partial(_undo_names, names, before, names.__setitem__, names.__delitem__), _public(before))

    def _collect(self, value: Any) -> None:
        if _is_of(value, fdl.Buildable):
            arguments, history = value.__arguments__, value.__argument_history__
            kept = {name: list(entries) for name, entries in history.items()}
            self._add(value, partial(_undo_config, value, dict(arguments), kept), arguments.values())
        elif _is_of(value, tuple):
            self._add(value, None, value[:_MOST_ITEMS])
        elif _is_of(value, list | set | dict):
            if len(value) <= _MOST_ITEMS:
                items = list(value.values() if _is_of(value, dict) else value)
                self._add(value, partial(_undo_items, value, copy.copy(value)), items)
        elif _is_of(value, partial | MethodType | cached_property | classmethod | staticmethod | property):
            self._add(value, None, gc.get_referents(value))
        elif _is_cache(value):
            undo = partial(_undo_cache, value, value.cache_info().misses)
            self._add(value, undo, (value.__wrapped__, *_kept(value)))
        elif _is_of(value, CellType):
            with contextlib.suppress(ValueError):  # of a variable without a value
                content = value.cell_contents
                self._add(value, partial(_undo_cell, value, content), [content])
        elif _is_of(value, type):
            if value.__module__ in self._modules:
                before = dict(vars(value))
                set_name, delete_name = partial(setattr, value), partial(delattr, value)
                self._add(value, partial(_undo_names, vars(value), before, set_name, delete_name), _public(before))
        elif _is_of(value, FunctionType):
            if value.__module__ in self._modules:
                defaults = (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
                self._add(value, None, (*defaults, *(value.__closure__ or ())))
                self._add_names(vars(value))
        elif type(value).__module__ in self._modules:
            with contextlib.suppress(AttributeError):  # a class with slots
                self._add_names(object.__getattribute__(value, "__dict__"))
            self._add(value, None, [item for item in gc.get_referents(value) if not _is_of(item, type)])


def _is_of(value: Any, kind: Any) -> bool:
    """Return whether a value has a type; does not use `__class__`, which an instance can override."""
    return issubclass(type(value), kind)


def _public(names: Mapping[str, object]) -> list[Any]:
    return [value for name, value in names.items() if not name.startswith("__")]


def _is_cache(value: object) -> bool:
    return type(value) is functools._lru_cache_wrapper


def _kept(cache: object) -> list[Any]:
    """Return the mutable values in a cache of functools, without relying on its internal structure."""
    found = gc.get_referents(cache)
    tables = [held for held in found if isinstance(held, dict) and held is not vars(cache)]
    return [value for value in (*found, *(item for table in tables for item in table.values())) if _can_change(value)]


def _can_change(value: object) -> bool:
    return _is_of(value, fdl.Buildable | list | set | dict | tuple)


def _undo_config(config: Any, arguments: Mapping[str, Any], history: Mapping[str, Any]) -> None:
    _refill(config.__arguments__, arguments)
    _refill(config.__argument_history__, history)


def _undo_items(holder: object, content: object) -> None:
    if _are_values(holder) and _are_values(content):
        _refill(holder, content)


def _undo_names(
    names: Mapping[str, object],
    before: Mapping[str, object],
    set_name: Callable[[str, object], None],
    delete_name: Callable[[str], None],
) -> None:
    """Restore variables that held values, and delete new variables that hold values."""
    for name, value in list(names.items()):
        if name.startswith("__") or value is before.get(name, names) or not _is_of(value, _VALUES):
            continue
        if name not in before:
            delete_name(name)
        elif _is_of(before[name], _VALUES):
            set_name(name, before[name])
    for name in before.keys() - names.keys():
        set_name(name, before[name])


def _undo_cell(cell: CellType, content: object) -> None:
    if _is_of(cell.cell_contents, _VALUES) and _is_of(content, _VALUES):
        cell.cell_contents = content


def _undo_cache(cache: Any, misses: int) -> None:
    if cache.cache_info().misses != misses and _kept(cache):
        cache.cache_clear()


def _are_values(holder: Any) -> bool:
    items: Iterable[Any] = holder.values() if isinstance(holder, dict) else holder
    return all(_is_of(item, _VALUES) for item in items)


def _refill(holder: Any, content: Any) -> None:
    """Restore the content of a list, set or dict."""
    holder.clear()
    (holder.extend if isinstance(holder, list) else holder.update)(content)
