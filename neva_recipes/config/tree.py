"""Recipes and executors as Fiddle graphs: make them with every default written out, change them by path, build them.

Paths are relative to the root; messages put the name of the root before them if it has one (`ConfigNode.root`).
"""

import copy
import dataclasses
import shlex
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, ParamSpec, TypeAlias, TypeVar

import fiddle as fdl

from neva_recipes.config._history import DEFAULT_OF, place_in_python, value_from
from neva_recipes.config.errors import NoSuchFieldError, RecipeError
from neva_recipes.config.values.nearness import near_words, suggest
from neva_recipes.config.values.node import (
    ConfigNode,
    check_value,
    describe_type,
    field_types,
    node_types,
    path_as_text,
    table_type,
)
from neva_recipes.config.values.paths import is_here_path
from neva_recipes.config.values.text import is_list, items_of, parse_value

__all__ = [
    "Draft",
    "DraftNode",
    "Field",
    "build",
    "config",
    "draft_of",
    "drafted_classes",
    "iterate_fields",
    "made_by_its_fields",
    "makes_drafts",
    "owned",
    "read_typed_texts",
    "set_field",
]

P = ParamSpec("P")
T = TypeVar("T")


Draft = Annotated[T, "a Fiddle config of it"]
"""A Fiddle config of a dataclass, as `config` makes it: `Draft[Recipe]` is a recipe whose fields can be set.

A type checker and an editor take it for the dataclass itself, so they know its fields and their types. Fiddle's own
`fdl.Config[Recipe]` means the same at run time, and tells them nothing.
"""


DraftNode: TypeAlias = fdl.Buildable[Any]
"""A draft of any class, as Fiddle sees it: for code that asks for its class, its arguments and their history."""


def drafted_classes(annotation: object) -> tuple[object, ...]:
    """Return the class that a function makes drafts of by the annotation of its result; empty where it says no class.

    `Draft[Recipe]`, `fdl.Config[Recipe]` and `Recipe` all say `Recipe`; `fdl.Config` says none.
    """
    origin, arguments = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if origin is Annotated:
        return arguments[:1]
    if isinstance(origin, type) and issubclass(origin, fdl.Buildable):
        return arguments
    return (annotation,)


def makes_drafts(annotation: object, is_meant: Callable[[type], bool]) -> bool:
    """Return whether a function makes drafts of classes that are meant, by the annotation of its result."""
    classes = drafted_classes(annotation)
    return bool(classes) and all(isinstance(cls, type) and is_meant(cls) for cls in classes)


@dataclasses.dataclass(frozen=True)
class Field:
    """One settable field of a recipe or an executor.

    Attributes:
        path: Dotted path, such as `optim.lr`.
        annotation: Its type annotation.
        value: Its current value.
        owner: The dataclass that declares it.
    """

    path: str
    annotation: Any
    value: Any
    owner: type


def config(cls: Callable[P, T], *unnamed: P.args, **values: P.kwargs) -> Draft[T]:
    """Return a Fiddle config of a configuration dataclass with every default written out.

    A saved recipe therefore keeps its meaning when a default in the code changes. Fiddle's history of the config
    distinguishes defaults from given values.

    Args:
        cls: The dataclass.
        *unnamed: None: fields are given by name.
        **values: Fields that differ from the defaults; nodes may be Fiddle configs.

    Raises:
        RecipeError: A name is not a field of `cls`, or a value has no name.
    """
    types = field_types(cls)
    if unnamed:
        raise RecipeError(f"config({cls.__name__}, ...): a value has no name: write FIELD=VALUE")
    for name in values:
        if name not in types:
            raise RecipeError(f"{cls.__name__} has no field {name}{suggest(name, types)}")
    defaults = {
        field.name: field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]
        if field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    }
    node: T = fdl.Config(cls, **values)
    with value_from(f"{DEFAULT_OF}{cls.__name__}"):
        for name, default in defaults.items():
            if name not in values:
                setattr(node, name, default)
    return node


def draft_of(node: T) -> Draft[T]:
    """Return a draft that is built to what a node is already, such as a recipe that no function has made."""
    fields = {field.name: getattr(node, field.name) for field in dataclasses.fields(node)}  # type: ignore[arg-type]
    cls: Callable[..., T] = type(node)
    return config(cls, **{name: draft_of(value) if _is_node(value) else value for name, value in fields.items()})


def _is_node(value: object) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def owned(made: T) -> T:
    """Return a copy of an object that holds recipes or executors, so that later changes to one don't affect the other.

    A `Path` in a field becomes text in the copy. Objects that are shared stay shared within the copy, as in Fiddle, and
    fields keep their history. An object that cannot be copied is not a valid value of a field; it is returned as it is,
    and `build` reports where it is.

    Raises:
        RecipeError: A config contains itself.
    """
    _refuse_cycles(made, ())
    try:
        copied = copy.deepcopy(made)
    except TypeError:
        return made
    _write_paths_as_texts(copied)
    return copied


def _write_paths_as_texts(made: object) -> None:
    """Turn the paths in a tree into text, in place; its history still says where they were set."""
    if isinstance(made, fdl.Buildable):
        cls: Any = fdl.get_callable(made)
        types = field_types(cls) if _is_node_class(cls) else {}
        for name, value in made.__arguments__.items():
            if isinstance(value, fdl.Buildable):
                _write_paths_as_texts(value)
            elif name in types:
                made.__arguments__[name] = path_as_text(types[name], value)


def read_typed_texts(made: DraftNode, texts: Mapping[str, str], path: str = "") -> None:
    """Turn each field that holds one of these texts into what the field reads from it, in place.

    Fields keep their history, which says where a function has set them.

    Args:
        made: A recipe or an executor, or a node of it.
        texts: Texts that were typed before it was known which field takes them, each with what it was typed for.
        path: Dotted path of the node, with a dot at its end; empty for the root.

    Raises:
        RecipeError: A field does not accept such a text.
    """
    types = field_types(fdl.get_callable(made))
    for name, value in made.__arguments__.items():
        if isinstance(value, fdl.Buildable):
            read_typed_texts(value, texts, f"{path}{name}.")
        elif name in types and isinstance(value, str) and value in texts:
            try:
                made.__arguments__[name] = parse_value(types[name], value, f"{path}{name}")
            except RecipeError as error:
                raise RecipeError(f"{texts[value]}: {error}") from None


def _refuse_cycles(value: object, above: tuple[object, ...]) -> None:
    """Refuse a config that contains itself; Fiddle would silently make a broken copy of it."""
    if any(value is holder for holder in above):
        cls = fdl.get_callable(value) if isinstance(value, fdl.Buildable) else type(value)
        raise RecipeError(f"a config of {cls.__name__} holds itself: put a copy of it there (copy.deepcopy)")
    items: Iterable[Any] = ()
    if isinstance(value, fdl.Buildable):
        items = value.__arguments__.values()
    elif isinstance(value, Mapping):
        items = value.values()
    elif isinstance(value, (list, tuple)):
        items = value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = vars(value).values()
    for item in items:
        _refuse_cycles(item, (*above, value))


def build(recipe: Draft[T], path: str = "") -> T:
    """Return the dataclass tree that a Fiddle config describes; it checks every field by itself.

    Args:
        recipe: The Fiddle config of a recipe or an executor, or a node of it.
        path: Dotted path of that node, for messages; empty for the root.

    Raises:
        RecipeError: A field is missing or holds a wrong value; the message starts with the dotted path.
    """
    cls: Any = fdl.get_callable(recipe)
    if not _is_node_class(cls):
        raise RecipeError(f"{path or 'recipe'} describes {cls.__name__}: expected a class of neva_recipes.config")
    path = path or cls.root
    node: fdl.Buildable[T] = recipe
    arguments = node.__arguments__
    values = {}
    for name, annotation in field_types(cls).items():
        where = f"{path}.{name}" if path else name
        if name not in arguments:
            if _has_default(cls, name):
                continue
            value = "FILE" if is_here_path(annotation) else "VALUE"
            raise RecipeError(
                f"{where} is not set: expected {describe_type(annotation)}; add {shlex.quote(where)}={value}"
            )
        value = arguments[name]
        if isinstance(value, fdl.Buildable):
            kind = fdl.get_callable(value)
            if _is_node_class(kind) and kind not in node_types(annotation):
                raise RecipeError(f"{where}={kind.__name__}: expected {describe_type(annotation)}")
            value = build(value, where)
        elif isinstance(value, ConfigNode):
            kind = type(value).__name__
            raise RecipeError(
                f"{where} is a finished {kind}: write config({kind}, ...), which can be changed and saved"
            )
        values[name] = value
    try:
        built: T = cls(**values)
    except RecipeError:
        for name, value in values.items():  # check again, for a message with the path of the field
            try:
                check_value(field_types(cls)[name], value, f"{path}.{name}" if path else name)
            except RecipeError as error:
                raise RecipeError(f"{error}{place_in_python(node, name)}") from None
        raise
    return built


def _is_node_class(cls: object) -> bool:
    return isinstance(cls, type) and issubclass(cls, ConfigNode)


def _has_default(cls: Any, name: str) -> bool:
    field = cls.__dataclass_fields__[name]
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def made_by_its_fields(annotation: object) -> type[ConfigNode] | None:
    """Return the group that comes into being in a field that is `None` when one of its fields is set, if any does."""
    classes = [cls for cls in node_types(annotation) if issubclass(cls, ConfigNode)]
    return next((cls for cls in classes if cls.is_made_by_its_fields), None)


def iterate_fields(recipe: Draft[ConfigNode], prefix: str = "") -> Iterator[Field]:
    """Yield every settable field of a recipe, depth first in the order of definition; a group yields its fields."""
    node: fdl.Buildable[ConfigNode] = recipe
    cls: Any = fdl.get_callable(node)
    for name, annotation in field_types(cls).items():
        value = node.__arguments__.get(name)
        if isinstance(value, fdl.Buildable):
            yield from iterate_fields(value, f"{prefix}{name}.")
        else:
            yield Field(f"{prefix}{name}", annotation, path_as_text(annotation, value), cls)


def set_field(recipe: Draft[ConfigNode], path: str, text: str) -> None:
    """Set one field from command-line text, in place.

    Args:
        recipe: The recipe or executor to change.
        path: Dotted path, such as `optim.lr` or, for an entry of a table, `env.NCCL_DEBUG`; a `+` at the end adds items
            to a list.
        text: The text typed after `=`; `none` clears an optional field.

    Raises:
        NoSuchFieldError: There is no such field; the message offers the nearest names.
        RecipeError: The field does not accept the text.
    """
    node: DraftNode = recipe
    path, adds = path.removesuffix("+"), path.endswith("+")
    shown = _shown(recipe, path)
    *groups, name = path.split(".")
    made: list[tuple[DraftNode, str, DraftNode]] = []
    for depth, group in enumerate(groups):
        child = node.__arguments__.get(group)
        if not isinstance(child, fdl.Buildable):
            types, here = field_types(fdl.get_callable(node)), _shown(recipe, ".".join(groups[: depth + 1]))
            if group not in types:
                raise _no_such_field(recipe, path, types)
            table = table_type(types[group])
            if table and adds:
                raise RecipeError(f"{shown}+={text}: is no list: write {shown}={text}")
            if table:
                item = parse_value(table[1], text, shown, may_be_empty=True)
                key = ".".join([*groups[depth + 1 :], name])
                setattr(node, group, check_value(types[group], {**(child or {}), key: item}, here))
                return
            if child is None and (cls := made_by_its_fields(types[group])):
                child = config(cls)
                made.append((node, group, child))
            elif child is None and node_types(types[group]):
                raise RecipeError(f"{shown}: {here} is none in this recipe, so it has no fields")
            else:
                raise RecipeError(f"{shown}: {here} is a field, not a group of fields")
        node = child
    types = field_types(fdl.get_callable(node))
    if name not in types:
        raise _no_such_field(recipe, path, types)
    if adds and not is_list(types[name]):
        raise RecipeError(f"{shown}+={text}: is no list: write {shown}={text}")
    value = parse_value(types[name], text, shown)
    setattr(node, name, [*items_of(node.__arguments__.get(name)), *items_of(value)] if adds else value)
    for owner, group, child in made:
        setattr(owner, group, child)


def _shown(recipe: DraftNode, path: str) -> str:
    root = getattr(fdl.get_callable(recipe), "root", "")
    return f"{root}.{path}" if root else path


def _no_such_field(recipe: DraftNode, path: str, nearest_group: Iterable[str]) -> NoSuchFieldError:
    """Return the error for a path, which offers fields of the same or a similar name, from the same group first."""
    group, _, name = path.rpartition(".")
    paths = [field.path for field in iterate_fields(recipe)]
    names = {candidate: candidate.rpartition(".")[2] for candidate in paths}
    alike = [name] if name in names.values() else near_words(name, names.values())
    near = [candidate for candidate in paths if names[candidate] in alike]
    near.sort(key=lambda candidate: (candidate.rpartition(".")[0] != group, alike.index(names[candidate])))
    start = f"{_shown(recipe, path)}: no such field"
    if near:
        return NoSuchFieldError(f"{start} (did you mean {', '.join(_shown(recipe, found) for found in near[:3])}?)")
    return NoSuchFieldError(f"{start}; expected one of {', '.join(nearest_group)}")
