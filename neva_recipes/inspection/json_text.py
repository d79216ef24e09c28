"""The output of `--format json`, and how to read the recipe back from it."""

import json
from typing import Any

from neva_recipes.config import (
    Draft,
    PlainTable,
    Recipe,
    RecipeError,
    recipe_from_plain,
    recipe_to_plain,
    with_absolute_inputs,
)
from neva_recipes.inspection.inspection import Inspection
from neva_recipes.inspection.sources import Source
from neva_recipes.inspection.tree import recipe_rows
from neva_recipes.plan.serialization import plan_to_plain

__all__ = ["INSPECTION_SCHEMA", "inspection_to_json", "recipe_from_json"]

INSPECTION_SCHEMA = 1
"""Version of the format; it grows when a key changes its meaning or goes away, not when a key is added."""


def inspection_to_json(inspection: Inspection) -> str:
    """Return an inspection as JSON text: `schema`, `recipe`, `sources`, `plan`, `refused_here` and `script`.

    docs/inspection.md describes the keys. All characters are ASCII.
    """
    document = {
        "schema": INSPECTION_SCHEMA,
        "recipe": recipe_to_plain(with_absolute_inputs(inspection.recipe)),
        "sources": {row.path: _source(row.source) for row in recipe_rows(inspection.recipe) if row.source is not None},
        "plan": plan_to_plain(inspection.plan),
        "refused_here": list(inspection.refused_here),
        "script": inspection.script,
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def recipe_from_json(text: str, source: str = "recipe") -> Draft[Recipe]:
    """Return the recipe of JSON text that `inspection_to_json` wrote.

    Args:
        text: The JSON.
        source: Name of the file, for messages.

    Raises:
        RecipeError: The text is not JSON of this form, or its recipe is not valid.
    """
    try:
        document: Any = json.loads(text)
    except ValueError as error:
        raise RecipeError(f"{source}: not valid JSON: {error}") from None
    if not isinstance(document, dict) or "recipe" not in document:
        raise RecipeError(f'{source}: has no "recipe": expected what --dry-run --format json prints')
    if document.get("schema") != INSPECTION_SCHEMA:
        raise RecipeError(f"{source}: schema {document.get('schema')!r}: expected {INSPECTION_SCHEMA}")
    return recipe_from_plain(document["recipe"], source)


def _source(source: Source) -> PlainTable:
    plain: PlainTable = {name: getattr(source, name) for name in ("kind", "file", "line", "function", "meaning")}
    if source.kind == "command line":
        plain["replaced"] = source.replaced
    return {key: value for key, value in plain.items() if key == "replaced" or value is not None}
