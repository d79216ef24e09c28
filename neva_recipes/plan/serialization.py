"""A plan as plain data: what `--format json` prints, and the content of plan.json in a run directory."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from neva_recipes.config import PlainTable
from neva_recipes.plan.cost.layout import Layout
from neva_recipes.plan.cost.memory import StageMemory
from neva_recipes.plan.cost.sizes import Stage
from neva_recipes.plan.disk import DiskSpace
from neva_recipes.plan.findings import Finding
from neva_recipes.plan.plan import Plan

__all__ = ["PLAN_SCHEMA", "plan_to_json", "plan_to_plain"]

PLAN_SCHEMA = 1
"""Version of the format; it grows when a key changes its meaning or goes away, not when a key is added."""

_DERIVED: tuple[tuple[type, tuple[str, ...]], ...] = (
    (Layout, ("world_size", "model_parallel_size", "bubble")),
    (Stage, ("num_layers",)),
    (StageMemory, ("total", "state")),
    (DiskSpace, ("total",)),
)
"""Properties that are written so that readers need not compute them again."""


def plan_to_plain(plan: Plan) -> PlainTable:
    """Return a plan as dictionaries, lists, strings and numbers, without the recipe, which has its own file.

    The keys are the attributes of `Plan` and of the dataclasses in it, and the properties in `_DERIVED`. A range of
    layers is `[first, end]`, with the end excluded. A finding has its complete text as `line`.
    """
    parts = {field.name: getattr(plan, field.name) for field in dataclasses.fields(plan) if field.name != "recipe"}
    head = {"schema": PLAN_SCHEMA, "recipe": plan.recipe.name, "gpu_counts": plan.gpu_counts}
    return head | {name: _plain(part) for name, part in parts.items()}


def plan_to_json(plan: Plan) -> str:
    """Return a plan as JSON text, as `plan_to_plain` describes it."""
    return json.dumps(plan_to_plain(plan), indent=2, allow_nan=False) + "\n"


def _plain(value: object) -> Any:
    if isinstance(value, range):
        return [value.start, value.stop]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    names = [field.name for field in dataclasses.fields(value)]
    names += [name for kind, derived in _DERIVED if isinstance(value, kind) for name in derived]
    plain = {name: _plain(getattr(value, name)) for name in names}
    return plain | {"line": value.line()} if isinstance(value, Finding) else plain
