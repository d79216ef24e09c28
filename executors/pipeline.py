"""Pipelines: stages that train or use a model, in an order, each with what the ones before have made.

A pipeline only says what is to be done; `executors.run_pipeline` does it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeAlias

import fiddle as fdl

from neva_recipes.config import ConfigNode, ConvTemplate, Positive, Recipe, RecipeError, iterate_fields, suggest
from neva_recipes.plan.checks import name_problem

__all__ = ["Evaluate", "Export", "Flow", "Pipeline", "Stage", "StageOutput", "Tool"]

_GROUPS = tuple(entry.name for entry in fields(Recipe))


@dataclass(kw_only=True, frozen=True)
class Tool(ConfigNode):
    """A program that uses a trained model."""

    module: ClassVar[str]
    """The module of the program; its `main` takes the arguments."""

    output: ClassVar[str]
    """File or folder that it makes, in the run directory of its stage."""

    model: str
    """The trained model: a run, a checkpoint or a Hugging Face directory."""

    def argv(self, output: str) -> list[str]:
        """Return the arguments of the program.

        Args:
            output: Path of what it makes.
        """
        raise NotImplementedError


@dataclass(kw_only=True, frozen=True)
class Export(Tool):
    """Writes the model as a Hugging Face directory, as `nemo-run export` does."""

    module: ClassVar[str] = "neva_model.checkpoints.export"
    output: ClassVar[str] = "exported"

    def argv(self, output: str) -> list[str]:
        """Return the arguments of the program; `output` is the directory it writes."""
        return [self.model, output]


@dataclass(kw_only=True, frozen=True)
class Evaluate(Tool):
    """Counts the right answers of the model, as `nemo-run evaluate` does."""

    module: ClassVar[str] = "neva_model.evaluation"
    output: ClassVar[str] = "predictions.jsonl"

    data: str
    """LLaVA JSON or JSONL of questions and answers."""
    image_folder: str | None = None
    """Folder of the images; none means that of the data."""
    conv_template: ConvTemplate | None = None
    """Conversation template; none means that of the training."""
    batch_size: Positive | None = None
    """Questions answered at once."""

    def argv(self, output: str) -> list[str]:
        """Return the arguments of the program; `output` is the file of every answer."""
        flags = {
            "data": self.data,
            "image-folder": self.image_folder,
            "conv-template": self.conv_template,
            "batch-size": self.batch_size,
            "output": output,
        }
        return [self.model, *(f"--{name}={value}" for name, value in flags.items() if value is not None)]


Work: TypeAlias = fdl.Buildable[Recipe] | fdl.Buildable[Tool]
"""What a stage does."""


@dataclass(frozen=True)
class StageOutput:
    """Stands in a field for what a stage makes, until the pipeline has a directory.

    Attributes:
        stage: Name of the stage.
    """

    stage: str

    def __str__(self) -> str:
        return f"{self.stage}.output"


@dataclass(frozen=True, eq=False)
class Stage:
    """One step of a pipeline.

    Attributes:
        name: Its name, one of its kind in the pipeline.
        work: The recipe or tool, as a Fiddle config; its fields may hold the `output` of stages before.
        settings: What tells it from its neighbours, for tables: in a sweep, the fields that vary.
    """

    name: str
    work: Work = field(repr=False)
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def output(self) -> StageOutput:
        """What it makes: a recipe its run, an export the directory it wrote, an evaluation the file of answers."""
        return StageOutput(self.name)

    @property
    def trains(self) -> bool:
        """Whether it trains a recipe."""
        return fdl.get_callable(self.work) is Recipe

    def inputs(self) -> Iterator[tuple[str, StageOutput]]:
        """Yield the fields that take what another stage makes, by dotted path."""
        for entry in iterate_fields(self.work):
            if isinstance(entry.value, StageOutput):
                yield entry.path, entry.value

    def __rshift__(self, other: "Steps") -> "Flow":
        return _flow(self) >> other

    def __rrshift__(self, other: "Steps") -> "Flow":
        return _flow(other) >> self


@dataclass(frozen=True)
class Flow:
    """Stages in an order; `a >> [b, c] >> d` runs b and c after a, and d after both.

    Attributes:
        stages: The stages, each once.
        edges: Pairs of stages, the second of which comes after the first.
        first: Those that what comes before leads to.
        last: Those that what comes after waits for.
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
"""What can stand on either side of `>>`."""


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
    """Stages and their order, checked.

    Args:
        name: Its name; its directory is called after it.
        *steps: Stages, flows (`a >> b`), and lists of them; those that nothing orders are independent.

    Attributes:
        name: Its name.
        stages: The stages, each behind those it comes after.

    Raises:
        RecipeError: Two stages share a name, a name cannot be used, the order has a cycle, or a stage takes what one
            makes that does not come before it.
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
        """Return the stage of that name.

        Raises:
            RecipeError: There is none.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        names = [stage.name for stage in self.stages]
        raise RecipeError(f"{name}: no such stage{suggest(name, names) or '; expected one of ' + ', '.join(names)}")

    def after(self, stage: Stage) -> tuple[Stage, ...]:
        """Return the stages that one waits for itself."""
        return tuple(before for before, behind in self._edges if behind is stage)

    def _sorted(self, stages: Sequence[Stage]) -> tuple[Stage, ...]:
        """Return the stages, each behind those it waits for, otherwise as they were given."""
        done: dict[Stage, None] = {}
        while len(done) < len(stages):
            ready = [stage for stage in stages if stage not in done and all(b in done for b in self.after(stage))]
            if not ready:
                left = " >> ".join(stage.name for stage in self._cycle(stages, done))
                raise RecipeError(f"pipeline {self.name}: {left} is a cycle: a stage cannot wait for itself")
            done.update(dict.fromkeys(ready))
        return tuple(done)

    def _cycle(self, stages: Sequence[Stage], done: Mapping[Stage, None]) -> list[Stage]:
        path = [next(stage for stage in stages if stage not in done)]
        while True:  # each that is left waits for another one that is left
            before = next(stage for stage in self.after(path[0]) if stage not in done)
            if before in path:
                return [before, *path[: path.index(before)], before]
            path.insert(0, before)

    def _check_inputs(self, stage: Stage) -> None:
        earlier = {before.name for before in self._ancestors(stage)}
        known = {other.name for other in self.stages}
        for path, output in stage.inputs():
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
                f"stage {stage.name}: does {kind.__name__}: expected a Config of Recipe, Export or Evaluate"
            )
