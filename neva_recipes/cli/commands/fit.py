"""Finds a layout: `nemo-run fit RECIPE --gpus N --gpu TYPE`."""

import argparse
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from neva_recipes.cli.arguments import (
    DEFAULT_EXECUTOR,
    StrictParser,
    UsageError,
    add_config,
    add_recipes,
    add_runs_dir,
    flag_words,
    split_overrides,
    whole_number,
    wrap,
)
from neva_recipes.cli.commands.executors import EXECUTOR_PREFIX, add_executor, chosen_executor, split_executor_overrides
from neva_recipes.cli.opening import is_run, named_parameters, open_recipe, tell_of_namesakes
from neva_recipes.config import format_value
from neva_recipes.plan.cost.gpus import GPUS_OF_A_MACHINE
from neva_recipes.run_directory.layout import RECIPE_FILE
from neva_recipes.secrets import mask, secret_values
from neva_recipes.terminal import print_text

if TYPE_CHECKING:
    from executors import Executor
    from neva_recipes.plan import Plan
    from neva_recipes.plan.fitting.fit import Candidate, Fit

__all__ = ["fit_command", "fit_words", "with_fit_command"]

_WIDTH = 80
_GIB = 2**30
_COLUMNS = "{:>4} {:>8} {:>8} {:>7} {:>4} {:>4} {:>4} {:>4} {:>5} {:>6}  {}"


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = StrictParser(
        "nemo-run fit",
        takes_fields=True,
        parameters=named_parameters,
        usage="nemo-run fit RECIPE --gpus N [--gpu TYPE] [key=value ...] [flags]",
        description=(
            "Layouts of a recipe that fit on some GPUs, fastest first, each with the\n"
            "overrides to paste behind nemo-run RECIPE, or nemo-run rerun RUN. RECIPE is a\n"
            "name that nemo-run list shows, a saved recipe (.yaml) or a run. Memory and time\n"
            "are arithmetic: docs/plan.md says how good.\n"
            "\n"
            "  nemo-run fit llava.finetune --gpus 8 --gpu a100-80g\n"
            "  nemo-run fit llava.finetune --gpus 16 --executor cluster\n"
            "  nemo-run fit llava.finetune size=13b --gpus 64 --gpu h100-80g"
        ),
    )
    parser.add_argument("words", metavar="RECIPE [key=value ...]", nargs="+", help="what to train, with changes")
    parser.add_argument(
        "--gpus", metavar="N", type=whole_number, required=True, help="number of GPUs over all machines"
    )
    parser.add_argument("--gpu", metavar="TYPE", help="type of GPU, such as a100-80g (the executor's, else h100-80g)")
    parser.add_argument(
        "--gpus-per-node",
        metavar="N",
        type=whole_number,
        help=f"GPUs of a machine (trainer.devices if it is given, else {GPUS_OF_A_MACHINE})",
    )
    parser.add_argument("--limit", metavar="N", type=whole_number, default=10, help="layouts to list (10)")
    add_executor(parser)
    parser.set_defaults(executor=None)
    add_recipes(parser)
    add_config(parser)
    add_runs_dir(parser)
    arguments = parser.parse(argv)
    for flag, value in (
        ("gpus", arguments.gpus),
        ("gpus-per-node", arguments.gpus_per_node),
        ("limit", arguments.limit),
    ):
        if value is not None and value < 1:
            raise UsageError(f"--{flag} {value}: expected at least 1")
    return arguments


def fit_command(argv: Sequence[str]) -> int:
    """Print the layouts of a recipe that fit on some GPUs: `nemo-run fit RECIPE --gpus N`."""
    arguments = _parse(argv)
    from neva_recipes.plan.fitting.fit import search_layouts

    name, *words = arguments.words
    overrides, of_executor = split_executor_overrides(split_overrides(words))
    if arguments.gpus_per_node is None:
        arguments.gpus_per_node = _machine_of(overrides)
    executor = _executor(arguments, of_executor)
    tell_of_namesakes([name], recipes=arguments.recipes, runs_dir=arguments.runs_dir)
    recipe = open_recipe(
        name, overrides, recipes=arguments.recipes, runs_dir=arguments.runs_dir, configs=arguments.config
    )
    gpu = executor.planned_gpu() if arguments.gpu is None and executor is not None else arguments.gpu
    found = search_layouts(recipe, gpus=arguments.gpus, gpu=gpu, gpus_per_node=arguments.gpus_per_node)
    place = f"{arguments.gpus} x {found.gpu.name}"
    if not found.candidates:
        raise UsageError(_reason(name, place, found, arguments))
    if executor is not None:
        executor.check(found.candidates[0].layout)  # all use the same number of machines
    command = _command(name, arguments, of_executor)
    report = "\n".join(_report(name, overrides, command, place, found, arguments.limit))
    print_text(mask(report, secret_values(os.environ)))
    return 0


def _machine_of(overrides: Mapping[str, str]) -> int:
    """Return the GPUs of a machine that overrides of the recipe name, or the usual number."""
    devices = overrides.get("trainer.devices", "")
    return int(devices) if devices.isdecimal() and int(devices) else GPUS_OF_A_MACHINE


def fit_words(arguments: argparse.Namespace) -> list[str]:
    """Return the words after `nemo-run fit` that mean the recipe of a launch."""
    words = arguments.words
    if arguments.executor == DEFAULT_EXECUTOR:
        # The default executor is left out, since a layout may take several machines; so are its fields.
        words = [word for word in words if not word.startswith(EXECUTOR_PREFIX)]
    return [*words, *_flags(arguments)]


def with_fit_command(plan: "Plan", words: Sequence[str]) -> "Plan":
    """Return a plan whose findings on memory name a command that lists layouts that fit, if there are any.

    Args:
        plan: The plan.
        words: The words after `nemo-run` that made its recipe.
    """
    if plan.layout is None or not any(finding.code == "memory" for finding in plan.findings):
        return plan

    from neva_recipes.plan.fitting.fit import fewest_gpus

    layout, gpu = plan.layout, plan.memory_gpu
    per_node = layout.processes_per_node
    if layout.num_nodes == 1:
        per_node = max(GPUS_OF_A_MACHINE, per_node)
    gpus = fewest_gpus(plan.recipe, gpu, at_least=layout.world_size, gpus_per_node=per_node)
    if gpus is None:
        return plan
    machines = ["--gpus-per-node", str(per_node)] if per_node != GPUS_OF_A_MACHINE else []
    command = shlex.join(["nemo-run", "fit", *words, "--gpus", str(gpus), "--gpu", gpu.name, *machines])
    what = "lists layouts that fit" if gpus == layout.world_size else f"lists layouts that fit on {gpus} of them"
    return replace(
        plan,
        findings=tuple(
            replace(found, advice=f"{found.advice}; {command} {what}".removeprefix("; "))
            if found.code == "memory"
            else found
            for found in plan.findings
        ),
    )


def _executor(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> "Executor | None":
    """Return the executor that the user named; `None` if there is none."""
    if arguments.executor is not None:
        return chosen_executor(arguments, overrides)
    for field, text in overrides.items():
        raise UsageError(f"{EXECUTOR_PREFIX}{field}={text}: goes with --executor NAME, which is not given")
    return None


def _command(name: str, arguments: argparse.Namespace, of_executor: Mapping[str, str]) -> list[str]:
    """Return the words that start the recipe, to paste before the fields that change."""
    if is_run(name, arguments.recipes):
        if arguments.executor is None and not arguments.config:
            return ["nemo-run", "rerun", name, *flag_words(runs_dir=arguments.runs_dir)]
        from executors import find_run

        name = str(find_run(name, arguments.runs_dir).path / RECIPE_FILE)
    fields = (f"{EXECUTOR_PREFIX}{field}={text}" for field, text in of_executor.items())
    return ["nemo-run", name, *_flags(arguments), *fields]


def _flags(arguments: argparse.Namespace) -> list[str]:
    return flag_words(
        recipes=arguments.recipes,
        configs=arguments.config,
        executor=arguments.executor,
        runs_dir=arguments.runs_dir,
    )


def _reason(name: str, place: str, found: "Fit", arguments: argparse.Namespace) -> str:
    """Return why nothing fits."""
    if found.nearest is None:
        return f"{name} cannot be divided over {place}: {found.obstacle}"
    settings = " ".join(_settings(found.nearest.overrides)) or "the recipe as it is"
    from neva_recipes.plan.checks import with_values
    from neva_recipes.plan.fitting.adapters import with_adapters
    from neva_recipes.plan.fitting.fit import fewest_gpus, search_layouts

    recipe, per_node = found.nearest.recipe, arguments.gpus_per_node
    more = fewest_gpus(recipe, found.gpu, at_least=arguments.gpus, gpus_per_node=per_node)
    remedy = "take more GPUs or larger ones" if more is None else f"take larger ones, or more of them: --gpus {more}"
    for change in with_adapters(recipe):
        changed = with_values(recipe, change)
        if search_layouts(changed, gpus=arguments.gpus, gpu=found.gpu.name, gpus_per_node=per_node).candidates:
            remedy += f"; adapters beside fixed weights fit: {' '.join(_settings(change))}"
            break
    return (
        f"{name} does not fit on {place}: the nearest layout needs {found.nearest.peak / _GIB:.1f} GiB on a GPU "
        f"of {found.gpu.memory_gib:.1f} ({settings}); {remedy}"
    )


def _report(
    name: str, overrides: Mapping[str, str], command: Sequence[str], place: str, found: "Fit", limit: int
) -> Iterator[str]:
    count = len(found.candidates)
    number = "1 layout fits" if count == 1 else f"{count} layouts fit, the fastest first"
    yield wrap(f"{name} on {place}, {found.gpu.memory_gib:.1f} GiB each: {number}")
    lengths = found.lengths
    yield wrap(f"lengths: {lengths.tokens:,.0f} tokens a sample; {lengths.source}")
    yield ""
    yield _COLUMNS.format("rank", "s/step", "hours", "GiB", "TP", "PP", "VP", "CP", "DP", "micro", "recompute")
    for rank, candidate in enumerate(found.candidates[:limit], start=1):
        yield _row(rank, candidate)
        settings = _settings(candidate.overrides) or ["(the recipe as it is)"]
        yield from _folded(settings, "     ", "     ", "")
    if count > limit:
        yield f"{count - limit} more: --limit {count}"
    best = found.candidates[0]
    off = best.cost.step_seconds_range[1] / best.cost.step_seconds - 1
    yield f"times are estimates, {off:.0%} either way".replace("%", " %")
    yield ""
    yield "The fastest, to be pasted (with --dry-run it starts nothing):"
    kept = [f"{key}={value}" for key, value in overrides.items() if key not in best.overrides]
    yield from _folded([*map(shlex.quote, [*command, *kept]), *_settings(best.overrides)], "  ", "    ", " \\")


def _row(rank: int, candidate: "Candidate") -> str:
    parallel, cost = candidate.recipe.parallel, candidate.cost
    return _COLUMNS.format(
        rank,
        f"{cost.step_seconds:.3g}",
        "-" if cost.hours is None else f"{cost.hours:.3g}",
        f"{candidate.peak / _GIB:.1f}",
        parallel.tensor_model_parallel_size,
        parallel.pipeline_model_parallel_size,
        parallel.virtual_pipeline_model_parallel_size or "-",
        parallel.context_parallel_size,
        candidate.layout.data_parallel_size,
        candidate.recipe.data.micro_batch_size,
        candidate.recipe.model.recompute_granularity or "none",
    )


def _settings(overrides: Mapping[str, object]) -> list[str]:
    return [shlex.quote(f"{path}={format_value(value)}") for path, value in overrides.items()]


def _folded(words: Iterable[str], first: str, rest: str, joint: str) -> Iterator[str]:
    """Yield words in lines of a terminal's width; a word is never cut, and lines end in `joint`."""
    line, is_empty = first, True
    for word in words:
        if not is_empty and len(line) + 1 + len(word) + len(joint) > _WIDTH:
            yield line + joint
            line, is_empty = rest, True
        line += word if is_empty else f" {word}"
        is_empty = False
    yield line
