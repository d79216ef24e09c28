"""The plan of a recipe: everything that can be said of it before it runs."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

import fiddle as fdl

from neva_recipes.config import Recipe, RunError, build
from neva_recipes.plan.checks import check_recipe
from neva_recipes.plan.cost import Cost, cost_of
from neva_recipes.plan.files import check_files
from neva_recipes.plan.findings import About, Finding
from neva_recipes.plan.gpus import Gpu, find_gpu
from neva_recipes.plan.layout import Layout, layout_of
from neva_recipes.plan.lengths import Lengths, SampleLengths, lengths_of, sample_lengths
from neva_recipes.plan.memory import StageMemory, memory_of
from neva_recipes.plan.memory_check import check_memory
from neva_recipes.plan.parameters import PartParameters, count_parameters
from neva_recipes.plan.rows import row_multiple
from neva_recipes.plan.waste_check import check_waste

__all__ = ["Place", "Plan", "Planner", "plan"]


class Place(Protocol):
    """What a plan asks of an executor."""

    def check(self, layout: Layout) -> None:
        """Raise `RunError` if it cannot give a job of this layout what it needs."""

    def gpu_type(self) -> str | None:
        """Return the type of its GPUs, by its name in `neva_recipes.plan.gpus`; none if that is not known."""


@dataclass(frozen=True)
class Plan:
    """What a recipe is, what it costs, and whether it can run.

    Attributes:
        recipe: The recipe, built.
        gpu: The GPU that memory and time are told for.
        gpu_assumed: Whether nobody has named that GPU, so that it may not be the one the recipe will run on.
        findings: What is wrong or wasteful, errors first.
        parameters: Weights of each part of the model.
        lengths: How long its samples are, and how that is known.
        layout: How processes, layers and microbatches are divided; none where they cannot be.
        memory: Bytes on a GPU of each pipeline stage; empty without a layout.
        cost: Operations, time and GPU hours; none without a layout.
    """

    recipe: Recipe
    gpu: Gpu
    gpu_assumed: bool
    findings: tuple[Finding, ...]
    parameters: tuple[PartParameters, ...]
    lengths: Lengths
    layout: Layout | None = None
    memory: tuple[StageMemory, ...] = ()
    cost: Cost | None = None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that keep it from running."""
        return tuple(finding for finding in self.findings if finding.severity == "error")


def plan(recipe: fdl.Buildable[Recipe] | Recipe, executor: Place | None = None, *, gpu: str | None = None) -> Plan:
    """Return the plan of a recipe; reads the files it names, starts and writes nothing.

    Args:
        recipe: What to train.
        executor: Where; none asks no executor whether it can.
        gpu: Name of a GPU type, such as `h100-80g`; none means the executor's, or that one if it does not know.

    Raises:
        RecipeError: A field holds a value of the wrong type or out of range, or there is no such GPU type.
    """
    return Planner(executor, gpu=gpu).plan(recipe)


class Planner:
    """Plans recipes that are to be started together: files that several of them name are looked at once.

    Args:
        executor: Where; none asks no executor whether it can.
        gpu: Name of a GPU type, such as `h100-80g`; none means the executor's, or that one if it does not know.

    Raises:
        RecipeError: There is no such GPU type.
    """

    def __init__(self, executor: Place | None = None, *, gpu: str | None = None) -> None:
        self._executor = executor
        known = executor.gpu_type() if gpu is None and executor is not None else gpu
        self._card, self._assumed = find_gpu(known), known is None
        self._files: dict[str, tuple[list[Finding], SampleLengths]] = {}
        self._lengths: dict[tuple[str, int], Lengths] = {}

    def plan(self, recipe: fdl.Buildable[Recipe] | Recipe) -> Plan:
        """Return the plan of a recipe; reads the files it names, starts and writes nothing.

        Raises:
            RecipeError: A field holds a value of the wrong type or out of range.
        """
        built = recipe if isinstance(recipe, Recipe) else build(recipe)
        card, assumed = self._card, self._assumed
        rules = check_recipe(built, None if assumed else card)
        # What the files of a recipe say depends on no other field of it.
        named = repr((built.data, built.model))
        if named not in self._files:
            self._files[named] = check_files(built), sample_lengths(built)
        found, samples = self._files[named]
        findings = [*rules, *_about("files", found)]
        key = named, row_multiple(built, on_gpu=built.trainer.accelerator != "cpu")
        if key not in self._lengths:
            self._lengths[key] = lengths_of(built, samples)
        lengths = self._lengths[key]
        parameters = count_parameters(built)
        if any(finding.severity == "error" for finding in rules):
            return Plan(built, card, assumed, _sorted(findings), parameters, lengths)
        layout = layout_of(built)
        memory = memory_of(built, layout)
        if built.trainer.accelerator != "cpu":
            findings += _about("memory", check_memory(built, memory, lengths, card, assumed=assumed))
        findings += check_waste(built, samples, lengths, card)
        if self._executor is not None:
            findings += _about("executor", _ask(self._executor, layout))
        cost = cost_of(built, layout, lengths, card)
        return Plan(built, card, assumed, _sorted(findings), parameters, lengths, layout, memory, cost)


def _about(subject: About, findings: Iterable[Finding]) -> list[Finding]:
    return [replace(finding, about=subject) for finding in findings]


def _sorted(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: finding.severity != "error"))


def _ask(executor: Place, layout: Layout) -> list[Finding]:
    try:
        executor.check(layout)
    except RunError as refusal:
        return [Finding("executor", "error", str(refusal))]
    return []
