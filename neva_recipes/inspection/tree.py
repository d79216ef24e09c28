"""A recipe as the rows of a tree: groups, and their fields with value and source."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import fiddle as fdl

from neva_recipes.config import Draft, DraftNode, Recipe, field_types, format_value, node_types
from neva_recipes.inspection.sources import Source, source_of

__all__ = ["Row", "recipe_rows"]


@dataclass(frozen=True)
class Row:
    """A group or a field of a recipe.

    Attributes:
        path: Dotted path.
        depth: Number of groups that contain it.
        value: The value of a field, as it is written after `key=`; the class of a group, if others are possible.
        source: Where a field's value comes from; `None` for a group.
    """

    path: str
    depth: int
    value: str
    source: Source | None

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    @property
    def origin(self) -> str:
        """Where a field's value comes from; of a value from the command line also what it was before, if it differs."""
        assert self.source is not None  # groups have none
        if self.source.kind != "command line":
            return str(self.source)
        if self.source.is_unchanged:
            return f"{self.source}, unchanged"
        return f"{self.source}, was {format_value(self.source.replaced) or repr('')}"


def recipe_rows(recipe: Draft[Recipe]) -> Iterator[Row]:
    """Yield the groups and fields depth first, in the order of definition, but groups after plain fields."""
    yield from _rows(recipe, "", 0)


def _rows(node: DraftNode, prefix: str, depth: int) -> Iterator[Row]:
    cls: Any = fdl.get_callable(node)
    groups = {}
    for name in field_types(cls):
        value = node.__arguments__.get(name, getattr(cls, name, None))
        if isinstance(value, fdl.Buildable):
            groups[name] = value
        else:
            yield Row(f"{prefix}{name}", depth, format_value(value), source_of(node, name))
    for name, group in groups.items():
        choices = node_types(field_types(cls)[name])
        yield Row(f"{prefix}{name}", depth, fdl.get_callable(group).__name__ if len(choices) > 1 else "", None)
        yield from _rows(group, f"{prefix}{name}.", depth + 1)
