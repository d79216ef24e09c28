"""The stages of a pipeline, and their order."""

import graphlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeAlias

import fiddle as fdl

from neva_recipes.config import (
    Draft,
    Field,
    Recipe,
    RecipeError,
    StageOutput,
    format_value,
    iterate_fields,
    owned,
    parse_value,
    suggest,
)
from neva_recipes.pipeline.tools import Tool
from neva_recipes.run_directory.names import name_problem

__all__ = ["Flow", "Pipeline", "Stage", "Work"]

_GROUPS = tuple(entry.name for entry in fields(Recipe))


Work: TypeAlias = Draft[Recipe] | Draft[Tool]
"""The work of a stage."""


@dataclass(frozen=True, eq=False)
class Stage:
    """One step of a pipeline.

    A stage copies its recipe when it is made: later changes to that recipe do not reach the stage. Change `stage.work`
    to change what the stage does.

    Attributes:
        name: Its name, unique in the pipeline.
        work: The recipe or tool, as a separate Fiddle config; its fields may hold the `output` of earlier stages.
        settings: In a sweep, the fields that vary, with their values, for tables.
    """

    name: str
    work: Any = field(repr=False)
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "work", owned(self.work))
        settings = {name: text if isinstance(text, str) else format_value(text) for name, text in self.settings.items()}
        object.__setattr__(self, "settings", settings)

    @property
    def output(self) -> StageOutput:
        """Its output: the run of a recipe, the directory of an export, or the file of answers of an evaluation."""
        return StageOutput(self.name)

    @property
    def trains(self) -> bool:
        """Whether it trains a recipe."""
        return fdl.get_callable(self.work) is Recipe

    def inputs(self) -> Iterator[tuple[str, StageOutput]]:
        """Yield the fields that take the output of another stage, by dotted path, once for each output."""
        for entry in iterate_fields(self.work):
            for value in entry.value if isinstance(entry.value, list) else [entry.value]:
                if isinstance(value, StageOutput):
                    yield entry.path, value

    def as_it_stands(self) -> "Stage":
        """Return a copy whose settings match its fields; keeps the original text of settings that still match."""
        return replace(self, settings={**self.settings, **self.changed_settings()})

    def changed_settings(self) -> dict[str, str]:
        """Return the settings that differ from the values of their fields, with these values."""
        held = {entry.path: entry for entry in iterate_fields(self.work)} if self.settings else {}
        return {
            name: format_value(held[name].value)
            for name, text in self.settings.items()
            # A name without a dot is a parameter, even if a field has the same name.
            if "." in name and name in held and not _stands_for(text, held[name])
        }

    def __rshift__(self, other: "Steps") -> "Flow":
        return _flow(self) >> other

    def __rrshift__(self, other: "Steps") -> "Flow":
        return _flow(other) >> self


def _stands_for(text: str, field: Field) -> bool:
    try:
        return bool(parse_value(field.annotation, text, field.path) == field.value)
    except RecipeError:
        return False


@dataclass(frozen=True)
class Flow:
    """Ordered stages; `a >> [b, c] >> d` runs b and c after a, and d after both.

    Attributes:
        stages: The stages, each once.
        edges: Pairs of stages, the second of which waits for the first.
        first: The stages that will wait for a flow before this one.
        last: The stages that a flow after this one will wait for.
    """

    stages: tuple[Stage, ...]
    edges: tuple[tuple[Stage, Stage], ...]
    first: tuple[Stage, ...]
    last: tuple[Stage, ...]

    def __rshift__(self, other: "Steps") -> "Flow":
        after = _flow(other)
        joints = tuple((before, behind) for before in self.last for behind in after.first)
        both = _joined([self, after])
        return Flow(both.stages, tuple(dict.fromkeys(both.edges + joints)), self.first, after.last)

    def __rrshift__(self, other: "Steps") -> "Flow":
        return _flow(other) >> self


Steps: TypeAlias = "Stage | Flow | Sequence[Steps]"
"""The operands of `>>`."""


def _flow(steps: Steps) -> Flow:
    if isinstance(steps, Flow):
        return steps
    if isinstance(steps, Stage):
        return Flow((steps,), (), (steps,), (steps,))
    if not isinstance(steps, (list, tuple)) or not steps:
        raise RecipeError(f"a pipeline is made of stages, flows and lists of them, not of {steps!r}")
    return _joined([_flow(step) for step in steps])


def _joined(flows: Iterable[Flow]) -> Flow:
    flows = list(flows)

    def union(name: str) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(item for flow in flows for item in getattr(flow, name)))

    return Flow(union("stages"), union("edges"), union("first"), union("last"))


class Pipeline:
    """Stages and their checked order.

    Args:
        name: Its name, with which the name of its directory begins.
        *steps: Stages, flows (`a >> b`), and lists of them; stages without an order are independent.

    Attributes:
        name: Its name.
        stages: The stages, each after the stages it waits for.

    Raises:
        RecipeError: Two stages have the same name, a name cannot be used, the order has a cycle, or a stage takes the
            output of a stage that does not come before it.
    """

    def __init__(self, name: str, *steps: Steps) -> None:
        if problem := name_problem(name):
            raise RecipeError(f"pipeline {name!r}: {problem}")
        flow = _flow(steps)
        self.name = name
        self._edges = flow.edges
        _check_names(flow.stages)
        self.stages = self._sorted(flow.stages)
        for stage in self.stages:
            self._check_inputs(stage)

    def __repr__(self) -> str:
        return f"Pipeline({self.name!r}, {', '.join(stage.name for stage in self.stages)})"

    def stage(self, name: str) -> Stage:
        """Return the stage of this name.

        Raises:
            RecipeError: There is no such stage.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        names = [stage.name for stage in self.stages]
        raise RecipeError(f"{name}: no such stage{suggest(name, names) or '; expected one of ' + ', '.join(names)}")

    def after(self, stage: Stage) -> tuple[Stage, ...]:
        """Return the stages that a stage directly waits for."""
        return tuple(before for before, behind in self._edges if behind is stage)

    def _sorted(self, stages: Sequence[Stage]) -> tuple[Stage, ...]:
        """Return the stages, each after the stages it waits for, otherwise in the given order."""
        sorter = graphlib.TopologicalSorter({stage: self.after(stage) for stage in stages})
        try:
            sorter.prepare()
        except graphlib.CycleError as error:
            cycle = " >> ".join(stage.name for stage in error.args[1])
            raise RecipeError(f"pipeline {self.name}: {cycle} is a cycle: a stage cannot wait for itself") from None
        done: list[Stage] = []
        while sorter.is_active():
            ready = sorted(sorter.get_ready(), key=stages.index)
            sorter.done(*ready)
            done += ready
        return tuple(done)

    def _check_inputs(self, stage: Stage) -> None:
        earlier = {before.name for before in self._ancestors(stage)}
        known = {other.name for other in self.stages}
        for path, output in stage.inputs():
            if output.file is not None and output.stage in known and self.stage(output.stage).trains:
                raise RecipeError(
                    f"{stage.name}.{path}={output}: {output.stage} trains, and its output is its newest checkpoint: "
                    f"take {output.stage}.output"
                )
            if output.stage not in known:
                raise RecipeError(
                    f"{stage.name}.{path}={output}: pipeline {self.name} has no stage {output.stage}"
                    f"{suggest(output.stage, known)}"
                )
            if output.stage not in earlier:
                raise RecipeError(
                    f"{stage.name}.{path}={output}: {output.stage} does not come before {stage.name}: "
                    f"write {output.stage} >> {stage.name}"
                )

    def _ancestors(self, stage: Stage) -> set[Stage]:
        found: set[Stage] = set()
        open_ends = [stage]
        while open_ends:
            new = set(self.after(open_ends.pop())) - found
            found |= new
            open_ends += new
        return found


def _check_names(stages: Sequence[Stage]) -> None:
    seen: set[str] = set()
    for stage in stages:
        if problem := name_problem(stage.name):
            raise RecipeError(f"stage {stage.name!r}: {problem}")
        if "." in stage.name or "=" in stage.name or stage.name in _GROUPS:
            raise RecipeError(
                f"stage {stage.name!r}: {stage.name}.FIELD=VALUE must name a field of that stage alone: "
                "choose a name without dots and = that is no group of a recipe"
            )
        if stage.name in seen:
            raise RecipeError(f"two stages are called {stage.name}: give each a name of its own")
        seen.add(stage.name)
        kind = fdl.get_callable(stage.work) if isinstance(stage.work, fdl.Buildable) else type(stage.work)
        if kind is not Recipe and not (isinstance(kind, type) and issubclass(kind, Tool)):
            raise RecipeError(
                f"stage {stage.name}: does {kind.__name__}: expected a Draft of Recipe, or of a tool such as Export"
            )
