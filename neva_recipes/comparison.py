"""What is different between two recipes, and the figures their plans are compared by."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from neva_recipes.config import Draft, Recipe, recipe_to_plain

__all__ = ["Change", "Figure", "plan_figures", "recipe_changes"]


@dataclass(frozen=True)
class Change:
    """A field that two recipes do not agree on.

    Attributes:
        path: Dotted name; `data.class` stands for the class of the group `data`.
        old: What the first one holds; `None` where it has no such field.
        new: What the second one holds; `None` where it has no such field.
        only_in: Which of the two has the field, if it is not both.
    """

    path: str
    old: Any
    new: Any
    only_in: Literal["old", "new"] | None = None

    @property
    def group(self) -> str:
        """The path without its last part; empty at the root."""
        return self.path.rpartition(".")[0]

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]


@dataclass(frozen=True)
class Figure:
    """A number of a plan.

    Attributes:
        name: What it is, for people.
        unit: Its unit; empty for a count.
        value: The number; `None` where the plan cannot tell it.
    """

    name: str
    unit: str
    value: float | None


def recipe_changes(old: Draft[Recipe], new: Draft[Recipe]) -> list[Change]:
    """Return the fields that two recipes do not agree on, in the order of definition, those only in `new` at their end.

    Raises:
        RecipeError: One of them is not valid.
    """
    before, after = dict(_leaves(recipe_to_plain(old), "")), dict(_leaves(recipe_to_plain(new), ""))
    # A group that only one of them has shows in its fields.
    for one, other in ((before, after), (after, before)):
        for path in [path for path in one if path not in other and any(p.startswith(f"{path}.") for p in other)]:
            del one[path]
    changes = [
        Change(path, value, after.get(path), None if path in after else "old")
        for path, value in before.items()
        if path not in after or after[path] != value
    ]
    return changes + [Change(path, None, value, "new") for path, value in after.items() if path not in before]


def _leaves(plain: dict[str, object], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in plain.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def plan_figures(plain: Mapping[str, Any]) -> list[Figure]:
    """Return what two plans are compared by: layout, weights, memory, operations, time; the same rows for every plan.

    Args:
        plain: What `plan_to_plain` returns, or plan.json of a run holds.
    """
    layout, cost = plain["layout"] or {}, plain["cost"] or {}
    weights = {kind: sum(part[kind] for part in plain["parameters"]) for kind in ("total", "trained")}
    fullest = max((stage["total"] / 2**30 for stage in plain["memory"]), default=None)
    state = max((stage["state"] / 2**30 for stage in plain["memory"] if "state" in stage), default=None)
    gpu_counts = plain.get("gpu_counts", True)

    def on_gpu(value: float | None) -> float | None:
        return value if gpu_counts else None

    return [
        Figure("GPUs" if gpu_counts else "processes", "", layout.get("world_size")),
        Figure("replicas (DP)", "", layout.get("data_parallel_size")),
        Figure("microbatches a step", "", layout.get("num_microbatches")),
        Figure("pipeline bubble", "%", _scaled(layout.get("bubble"), 100)),
        Figure("weights", "", weights["total"]),
        Figure("trained weights", "", weights["trained"]),
        Figure("weights and optimizer", "GiB", None if gpu_counts else state),
        Figure("memory of the fullest GPU", "GiB", on_gpu(fullest)),
        Figure("operations of a sample", "TFLOP", cost.get("sample_tflop")),
        Figure("operations of a step", "TFLOP", cost.get("step_tflop")),
        Figure("padding", "%", _scaled(cost.get("padding"), 100)),
        Figure("steps", "", cost.get("steps")),
        Figure("time of a step", "s", on_gpu(cost.get("step_seconds"))),
        Figure("time of the run", "h", on_gpu(cost.get("hours"))),
        Figure("GPU hours", "h", on_gpu(cost.get("gpu_hours"))),
    ]


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value
