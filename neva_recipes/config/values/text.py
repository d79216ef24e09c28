"""Reading and writing values as they appear after `key=` on the command line."""

import enum
import json
import re
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from neva_recipes.config.errors import RecipeError, RunError
from neva_recipes.config.values.node import (
    check_value,
    field_types,
    is_none_word,
    item_types,
    members_of,
    node_types,
    table_type,
    tuple_types,
)
from neva_recipes.config.values.numbers import read_number
from neva_recipes.config.values.paths import expand_path, local_path, path_is
from neva_recipes.secrets import MASK, is_secret, mask
from neva_recipes.terminal import visible

__all__ = ["can_be_read", "format_value", "how_many", "is_list", "items_of", "listed_paths", "parse_value"]

_QUOTED = re.compile(r"""\s*(?:"((?:[^"\\]|\\.)*)"|'([^']*)')\s*(?:,|$)""", re.DOTALL)
"""A quoted item of a list: in double quotes with the escapes of JSON, in single quotes without escapes."""

_LISTS: dict[Any, Callable[[list[Any]], Any]] = {list: list, tuple: tuple, set: set, frozenset: frozenset}
_EMPTY_LIST = "[]"
_UNREADABLE = object()


class _NothingBesideComma(RecipeError):
    """An item of a list is missing, for example because a shell variable is not set."""


def parse_value(annotation: object, text: str, path: str, *, may_be_empty: bool = False) -> Any:
    """Return the value that `text` stands for on the command line, checked against `annotation`.

    Args:
        annotation: The field's type annotation.
        text: The text typed after `path=`.
        path: Dotted path of the field.
        may_be_empty: Whether an empty text is a valid string.

    Raises:
        RecipeError: The field does not accept the value that the text stands for.
    """
    members = members_of(annotation)
    if type(None) in members and is_none_word(text):
        return None
    if node_types(annotation):
        names = ", ".join(f"{path}.{name}" for cls in node_types(annotation)[:1] for name in field_types(cls))
        raise RecipeError(f"{path}={text}: is a group of fields, set one of them: {names}")
    if table_type(annotation):
        if text == "{}":
            return {}
        raise RecipeError(f"{path}={text}: is a table, set what is in it by name: {path}.NAME=VALUE")
    if is_list(annotation) and not path_is(expand_path(text)):  # the name of a file can end in a comma
        _require_whole_list(text, path)
        if text == _EMPTY_LIST:  # a text only where no list is taken
            members = tuple(sorted(members, key=lambda member: not is_list(member)))
    for member in members:
        value = _read(member, text, path)
        if value is not _UNREADABLE:
            try:
                check_value(member, value, path, may_be_empty=True)
            except RecipeError:
                continue
            return check_value(annotation, value, path, may_be_empty=may_be_empty)
    return check_value(annotation, text, path, may_be_empty=may_be_empty)


def can_be_read(annotation: object) -> bool:
    """Return whether a value of this type can be written on the command line."""
    return bool(table_type(annotation)) or any(map(_is_readable, members_of(annotation)))


def _is_readable(member: object) -> bool:
    origin, arguments = typing.get_origin(member), typing.get_args(member)
    if origin is Annotated:
        return _is_readable(arguments[0])
    if is_list(member):
        return all(map(can_be_read, item_types(member)))
    return origin is Literal or member in (Any, object, bool, int, float, str, Path) or _is_enum(member)


def is_list(annotation: object) -> bool:
    """Return whether a value of this type is a list of values."""
    return any((typing.get_origin(m) or m) in (*_LISTS, Sequence) for m in members_of(annotation))


def how_many(number: int, word: str, plural: str = "") -> str:
    """Return a number and the word for what it counts: `1 sample`, `2,000 samples`."""
    return f"{number:,} {word if number == 1 else plural or word + 's'}"


def listed_paths(value: str | list[str] | None) -> list[str]:
    """Return the names in a field that takes one path or several: `a.json,b.json`, a list, or the name of one file.

    A text that is the name of an existing file is that one name, even if it contains commas.
    """
    if not isinstance(value, str):
        return list(value or ())
    if path_is(expand_path(value)):
        return [value]
    try:
        return _items(value, value) or [value]
    except RecipeError:  # unbalanced quotes: the name of a file that does not exist
        return [value]


def items_of(value: object) -> list[Any]:
    """Return the items of a field that takes a list: text lists paths, and any other single value is one item."""
    if isinstance(value, str):
        return listed_paths(value) if value else []
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    return [] if value is None else [value]


def _is_enum(member: object) -> bool:
    return isinstance(member, type) and issubclass(member, enum.Enum)


def _read(member: Any, text: str, path: str) -> Any:
    """Return the value of one type that a text stands for; `_UNREADABLE` if it stands for none."""
    origin, arguments = typing.get_origin(member), typing.get_args(member)
    if origin is Annotated:
        return _read(arguments[0], text, path)
    if origin is Literal:
        return next((choice for choice in arguments if format_value(choice) == text), _UNREADABLE)
    if (kind := origin or member) in _LISTS or kind is Sequence:
        texts = _items(text, path)
        types = tuple_types(member) or item_types(member)[:1] * len(texts)
        if len(types) != len(texts):
            return _UNREADABLE
        try:
            items = [
                parse_value(item_type, item, path, may_be_empty=True)
                for item_type, item in zip(types, texts, strict=True)
            ]
        except RecipeError:
            return _UNREADABLE  # so that the message is about the whole value, as in Python and files
        return _LISTS.get(kind, list)(items)
    if member is bool:
        return {"true": True, "false": False}.get(text.lower(), _UNREADABLE)
    if member in (int, float):
        number = read_number(member, text)
        return _UNREADABLE if number is None else number
    if member is Path:
        return _own_path(text, path) if text else _UNREADABLE
    if _is_enum(member):
        named = [choice for choice in member if text in (choice.name, str(choice.value))]
        return named[0] if named else _UNREADABLE
    return text if member in (str, Any, object) else _UNREADABLE


def _own_path(text: str, path: str) -> Path:
    try:
        return local_path(text, path)
    except RunError as error:
        raise RecipeError(str(error)) from None


def _items(text: str, path: str) -> list[str]:
    """Return the items of a list: `a,b`, `[a, b]`, `"a,b",c`; in brackets it may end with a comma.

    Raises:
        RecipeError: A comma is inside quotes that do not enclose a whole item, or an item next to a comma is missing,
            for example because a shell variable is not set.
    """
    is_closed = text.startswith("[") and text.endswith("]")
    rest: str | None = text[1:-1].rstrip().removesuffix(",") if is_closed else text
    items, bare = list[str](), list[str]()
    if not (rest or "").strip():
        return items
    while rest is not None:
        if quoted := _QUOTED.match(rest):
            items.append(quoted[2] if quoted[1] is None else _unescaped(quoted[1], path))
            rest = rest[quoted.end() :] if quoted[0].endswith(",") else None
            continue
        item, comma, behind = rest.partition(",")
        if not item.strip():
            raise _NothingBesideComma(f'{path}={text}: an item is empty: leave out its comma; "" is an empty text')
        items.append(item.strip())
        bare.append(item)
        rest = behind if comma else None
    if len(items) > 1 and any(item.count(quote) % 2 for item in bare for quote in "\"'"):
        raise RecipeError(
            f"{path}={text}: a comma inside quotes divides items too: put quotes round each item that holds one, or "
            f"add it by itself: {path}+=ITEM"
        )
    return items


def _require_whole_list(text: str, path: str) -> None:
    """Raise `RecipeError` if an item next to a comma is missing; unbalanced quotes may be part of a name."""
    try:
        _items(text, path)
    except _NothingBesideComma:
        raise
    except RecipeError:
        return


def _unescaped(text: str, path: str) -> str:
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except json.JSONDecodeError:
        raise RecipeError(
            f'{path}: "{text}": a backslash in double quotes begins an escape of JSON: write two, or single quotes'
        ) from None


def format_value(value: object) -> str:
    """Return a field's value as it is written after `key=` on the command line, not yet quoted for a shell.

    Secrets are masked, since a recipe that has not been checked may hold some.
    """
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple | set | frozenset):
        return ",".join(map(_format_item, value)) or _EMPTY_LIST
    if isinstance(value, dict):
        return ",".join(f"{name}={_shown_entry(name, item)}" for name, item in value.items()) or "{}"
    return mask(value.name if isinstance(value, enum.Enum) else str(value))


def _shown_entry(name: object, item: object) -> str:
    # A rate is no secret, though the weight that it belongs to is called embed_tokens.
    return MASK if not isinstance(item, float) and is_secret(str(name), str(item)) else str(item)


def _format_item(item: object) -> str:
    text = format_value(item)
    if not isinstance(item, str):
        return text
    stands_alone = text and text == text.strip() and text == visible(text) and not is_none_word(text)
    if stands_alone and not re.search(r"""[,"'\n\t]|^\[|\]$""", text):
        return text
    return json.dumps(text, ensure_ascii=text != visible(text))
