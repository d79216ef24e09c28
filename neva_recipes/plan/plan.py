"""The plan of a recipe: everything that is known before it runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from neva_recipes.config import Draft, Recipe, RunError, build
from neva_recipes.plan.checks import check_recipe, check_schedule
from neva_recipes.plan.cost.cost import Cost, cost_of
from neva_recipes.plan.cost.gpus import Gpu, find_gpu, gpus_named
from neva_recipes.plan.cost.layout import Layout, layout_of
from neva_recipes.plan.cost.memory import StageMemory, memory_of
from neva_recipes.plan.cost.parameters import PartParameters, count_parameters
from neva_recipes.plan.cost.rows import row_multiple
from neva_recipes.plan.data.files import FileRules, records_checked
from neva_recipes.plan.data.fingerprints import Fingerprint, fingerprints
from neva_recipes.plan.data.lengths import Lengths, SampleLengths, lengths_of, sample_lengths
from neva_recipes.plan.data.passes_check import check_passes
from neva_recipes.plan.disk import DiskSpace, disk_space
from neva_recipes.plan.findings import SEVERITIES, About, Finding, error, with_one_length
from neva_recipes.plan.fitting.cpu_check import check_cpu
from neva_recipes.plan.fitting.machine import CpuMachine
from neva_recipes.plan.fitting.memory_check import check_memory, judged_gpu
from neva_recipes.plan.fitting.waste_check import check_waste
from neva_recipes.plan.saving_check import check_saving
from neva_recipes.plan.trained.sought_samples import DataFile

__all__ = ["Place", "Plan", "Planner", "plan"]

_FOR_ELSEWHERE = ("executor", "no-gpu")
"""Codes of errors that say that this executor or machine cannot run the recipe, even if the recipe is right."""


class Place(Protocol):
    """What a plan needs to know of an executor."""

    def check(self, layout: Layout) -> None:
        """Raise `RunError` if the executor cannot give a job of this layout what it needs."""

    def planned_gpu(self) -> str | None:
        """Return the type of the executor's GPUs, in any spelling; `None` if unknown."""

    def cpu_machine(self) -> CpuMachine | None:
        """Return the machine that its runs train on without a GPU; `None` if they get a GPU or this is unknown."""

    def fetched_models(self) -> Path:
        """Return the folder in which its processes look for models on the hub that have been fetched."""

    def lacks(self, package: str) -> bool:
        """Return whether its processes cannot import a Python package; False if unknown."""

    def advise(self, plan: "Plan") -> Iterable[Finding]:
        """Return warnings and notes on what the executor would ask for, given a plan that has a layout."""


@dataclass(frozen=True)
class Plan:
    """What a recipe is, what it costs, and whether it can run.

    Attributes:
        recipe: The built recipe.
        gpu: The GPU that memory and time are estimated for.
        gpu_assumed: Whether the GPU is assumed, not named, so that the recipe may run on another one.
        findings: What is wrong, wasteful or worth knowing; errors first, notes last.
        parameters: Weights of each part of the model.
        lengths: The lengths of its samples, and their source.
        layout: How processes, layers and micro batches are divided; `None` if they cannot be.
        memory: Bytes on a GPU of each pipeline stage; empty without a layout.
        cost: Operations, time and GPU hours; `None` without a layout.
        checked: Which records of the data files were checked, as text; empty if none.
        on_cpu: Whether it is known to train without a GPU.
        gpu_smaller: The smallest type that the name of the GPU may stand for, if it leaves the memory open.
        disk: The disk space it needs; `None` without a layout.
        data_files: What the training files hold, in the order in which they are named; empty if one cannot be read.
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
    checked: str = ""
    on_cpu: bool = False
    gpu_smaller: Gpu | None = None
    disk: DiskSpace | None = None
    data_files: tuple[Fingerprint, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that keep the recipe from running."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def gpu_counts(self) -> bool:
        """Whether the memory and time of the GPU are meaningful.

        They are if the recipe gets a GPU or the user named its type. They also are if this machine has no GPU and
        cannot run the recipe: then it is meant for another machine.
        """
        is_for_elsewhere = self.recipe.trainer.accelerator == "auto" and any(
            finding.code in _FOR_ELSEWHERE for finding in self.errors
        )
        return not (self.on_cpu and self.gpu_assumed) or is_for_elsewhere

    @property
    def memory_gpu(self) -> Gpu:
        """The GPU that a finding on memory is about."""
        return judged_gpu(self.memory, self.gpu, self.gpu_smaller)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The warnings; without those on memory if the recipe trains without a GPU and the GPU is only assumed."""
        found = (finding for finding in self.findings if finding.severity == "warning")
        return tuple(finding for finding in found if self.gpu_counts or finding.about != "memory")

    @property
    def notes(self) -> tuple[Finding, ...]:
        """What is worth knowing, although it may be right as it is."""
        return tuple(finding for finding in self.findings if finding.severity == "note")


def plan(
    recipe: Draft[Recipe] | Recipe,
    executor: Place | None = None,
    *,
    gpu: str | None = None,
    runs_dir: str | Path | None = None,
) -> Plan:
    """Return the plan of a recipe. It reads the files that the recipe names, but starts and writes nothing.

    Args:
        recipe: What to train.
        executor: The executor to ask whether it can run the recipe; `None` asks none.
        gpu: Name of a GPU type, such as `h100-80g`; `None` means the executor's, or h100-80g if that is unknown.
        runs_dir: Folder in which runs were looked for by name, for messages; `None` if in none.

    Raises:
        RecipeError: A field holds a value of the wrong type or out of range, or the GPU type is unknown.
    """
    return Planner(executor, gpu=gpu, runs_dir=runs_dir).plan(recipe)


class Planner:
    """Plans recipes that start together; reads a file that several of them name only once.

    Args:
        executor: The executor to ask whether it can run the recipes; `None` asks none.
        gpu: Name of a GPU type, such as `h100-80g`; `None` means the executor's, or h100-80g if that is unknown.
        runs_dir: Folder in which runs were looked for by name, for messages; `None` if in none.

    Raises:
        RecipeError: The GPU type is unknown.
    """

    def __init__(
        self, executor: Place | None = None, *, gpu: str | None = None, runs_dir: str | Path | None = None
    ) -> None:
        self._executor = executor
        known = executor.planned_gpu() if gpu is None and executor is not None else gpu
        self._card, self._assumed = find_gpu(known), known is None
        types = [] if known is None else gpus_named(known)
        self._smaller = types[-1] if len(types) > 1 else None
        self._machine = executor.cpu_machine() if executor is not None else None
        self._models = None if executor is None else executor.fetched_models()
        self._files = FileRules(runs_dir, self._models)
        self._samples: dict[str, tuple[SampleLengths, str]] = {}
        self._lengths: dict[tuple[str, int], Lengths] = {}

    def expect(self, path: str, recipe: Recipe) -> None:
        """Announce a run that does not exist yet, for recipes that start from it.

        Args:
            path: The path it will have.
            recipe: The recipe it trains.
        """
        self._files.expect(path, recipe)

    def trained_files(self, source: str, names: Iterable[str]) -> list[str]:
        """Return the data files that a model was trained on, as `FileRules.trained_files` does."""
        return self._files.trained_files(source, names)

    def trained_questions(self, source: str, questions: Sequence[DataFile]) -> str:
        """Return how many of the questions are training samples of a model, as `FileRules.trained_questions` does."""
        return self._files.trained_questions(source, questions)

    def plan(self, recipe: Draft[Recipe] | Recipe) -> Plan:
        """Return the plan of a recipe. It reads the files that the recipe names, but starts and writes nothing.

        Raises:
            RecipeError: A field holds a value of the wrong type or out of range.
        """
        built = recipe if isinstance(recipe, Recipe) else build(recipe)
        card, assumed = self._card, self._assumed
        accelerator = built.trainer.accelerator
        on_cpu = accelerator == "cpu" or (accelerator == "auto" and self._machine is not None)
        known = None if assumed else card
        rules = check_recipe(built, known, self._files.rules)
        findings = with_one_length([*rules, *_about("files", self._files.check(built, known))])
        # These two parts of a recipe determine what its files contain for it; no other field does.
        named = repr((built.data, built.model))
        if named not in self._samples:
            self._samples[named] = self._measured(built, findings), records_checked(built)
        samples, checked = self._samples[named]
        key = named, row_multiple(built, on_gpu=accelerator != "cpu")
        if key not in self._lengths:
            self._lengths[key] = lengths_of(built, samples)
        lengths = self._lengths[key]
        bare = Plan(
            built,
            card,
            assumed,
            (),
            count_parameters(built),
            lengths,
            checked=checked,
            on_cpu=on_cpu,
            gpu_smaller=self._smaller,
            data_files=fingerprints(built, "data.data_path"),
        )
        if any(finding.severity == "error" for finding in rules):
            return replace(bare, findings=_sorted(findings))
        layout = layout_of(built)
        memory = memory_of(built, layout)
        if accelerator != "cpu":
            cards = card, self._smaller
            findings += _about("memory", check_memory(built, memory, lengths, *cards, assumed=assumed))
        findings += [*check_waste(built, samples, lengths, self._smaller or card), *check_passes(built, samples)]
        if self._executor is not None:
            findings += _about("executor", [*_ask(self._executor, layout), *_missing_packages(self._executor, built)])
        cost = cost_of(built, layout, lengths, card)
        findings += _check_steps(built, cost, on_cpu=on_cpu)
        disk = disk_space(built, layout, cost.steps)
        if accelerator != "cpu" and self._machine is not None:
            findings += _about("machine", check_cpu(built, layout, memory, cost, self._machine))
        return _advised(replace(bare, layout=layout, memory=memory, cost=cost, disk=disk), findings, self._executor)

    def _measured(self, recipe: Recipe, findings: Iterable[Finding]) -> SampleLengths:
        """Return the lengths of samples of the training files, if these have the right format."""
        is_wrong = any(
            finding.code == "data-format" and finding.severity == "error" and "data.data_path" in finding.fields
            for finding in findings
        )
        return sample_lengths(recipe, can_read=not is_wrong, models=self._models)


def _about(subject: About, findings: Iterable[Finding]) -> list[Finding]:
    return [replace(finding, about=subject) for finding in findings]


def _sorted(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))


def _advised(plan: Plan, findings: Sequence[Finding], executor: Place | None) -> Plan:
    """Return a plan with its findings, and those of the executor about it."""
    whole = replace(plan, findings=_sorted(findings))
    return whole if executor is None else replace(plan, findings=_sorted([*findings, *executor.advise(whole)]))


def _check_steps(recipe: Recipe, cost: Cost, *, on_cpu: bool) -> list[Finding]:
    """Return what is found of a recipe once its steps, and on GPUs their time, are known."""
    saving = check_saving(recipe, cost.steps, None if on_cpu else cost.hours)
    return [*check_schedule(recipe, cost.steps), *saving]


def _missing_packages(executor: Place, recipe: Recipe) -> list[Finding]:
    """Return an error if metrics go to Weights & Biases, but its package is not installed."""
    uses = {
        "wandb": ("logging.wandb_project", recipe.logging.wandb_project, "wandb"),
        "bitsandbytes": ("model.language.quantize", recipe.model.language.quantize, "qlora"),
    }
    found = []
    for package, (field, value, extra) in uses.items():
        if value is not None and executor.lacks(package):
            advice, message = f"pip install 'neva-recipes[{extra}]'", f"{package} is not installed"
            found.append(error("package-missing", message, recipe, field, remedies=[{field: None}], advice=advice))
    return found


def _ask(executor: Place, layout: Layout) -> list[Finding]:
    try:
        executor.check(layout)
    except RunError as refusal:
        return [Finding("executor", "error", str(refusal))]
    return []
