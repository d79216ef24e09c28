"""Finding a layout: `nemo-run fit RECIPE --gpus N --gpu TYPE`."""

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neva_recipes.cli._arguments import StrictParser, UsageError, add_runs_dir, split_overrides, wrap
from neva_recipes.cli._opening import open_recipe
from neva_recipes.config import format_value
from neva_recipes.secrets import mask, secret_values

if TYPE_CHECKING:
    from neva_recipes.plan.fit import Candidate, Fit

__all__ = ["fit_command"]

_WIDTH = 80
_GIB = 2**30
_COLUMNS = "{:>4} {:>8} {:>8} {:>7} {:>4} {:>4} {:>4} {:>4} {:>5} {:>6}  {}"


def fit_command(argv: Sequence[str]) -> int:
    """Print the layouts of a recipe that fit on some GPUs: `nemo-run fit RECIPE --gpus N`."""
    parser = StrictParser(
        "nemo-run fit",
        usage="nemo-run fit RECIPE --gpus N [--gpu TYPE] [key=value ...] [flags]",
        description=(
            "Layouts of a recipe that fit on some GPUs, fastest first, each with the\n"
            "overrides to paste behind nemo-run RECIPE. RECIPE is a name that nemo-run list\n"
            "shows, a saved recipe (.yaml) or a run. Memory and time are arithmetic:\n"
            "docs/plan.md says how good.\n"
            "\n"
            "  nemo-run fit llava.finetune --gpus 8 --gpu a100-80g\n"
            "  nemo-run fit llava.finetune size=13b --gpus 64 --gpu h100-80g"
        ),
    )
    parser.add_argument("words", metavar="RECIPE [key=value ...]", nargs="+", help="what to train, with changes")
    parser.add_argument("--gpus", metavar="N", type=int, required=True, help="number of GPUs over all machines")
    parser.add_argument("--gpu", metavar="TYPE", help="type of GPU, such as a100-80g (h100-80g)")
    parser.add_argument("--gpus-per-node", metavar="N", type=int, default=8, help="GPUs of a machine (8)")
    parser.add_argument("--limit", metavar="N", type=int, default=10, help="layouts to list (10)")
    parser.add_argument("--recipes", metavar="F", type=Path, help="Python file with recipes of your own")
    add_runs_dir(parser)
    arguments = parser.parse(argv)
    for flag, value in (
        ("gpus", arguments.gpus),
        ("gpus-per-node", arguments.gpus_per_node),
        ("limit", arguments.limit),
    ):
        if value < 1:
            raise UsageError(f"--{flag} {value}: expected at least 1")

    from neva_recipes.plan.fit import search_layouts

    name, *words = arguments.words
    overrides = split_overrides(words)
    recipe = open_recipe(name, overrides, recipes=arguments.recipes, runs_dir=arguments.runs_dir)
    found = search_layouts(recipe, gpus=arguments.gpus, gpu=arguments.gpu, gpus_per_node=arguments.gpus_per_node)
    place = f"{arguments.gpus} x {found.gpu.name}"
    if not found.candidates:
        raise UsageError(_reason(name, place, found))
    report = "\n".join(_report(name, overrides, arguments.recipes, place, found, arguments.limit))
    print(mask(report, secret_values(os.environ)))
    return 0


def _reason(name: str, place: str, found: "Fit") -> str:
    """Return why nothing fits."""
    if found.nearest is None:
        return f"{name} cannot be divided over {place}: {found.obstacle}"
    settings = " ".join(_settings(found.nearest.overrides)) or "the recipe as it is"
    return (
        f"{name} does not fit on {place}: the nearest layout needs {found.nearest.peak / _GIB:.1f} GiB on a GPU "
        f"of {found.gpu.memory_gib:.1f} ({settings}); take more GPUs or larger ones"
    )


def _report(
    name: str, overrides: Mapping[str, str], recipes: Path | None, place: str, found: "Fit", limit: int
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
    yield ""
    yield "The fastest, to be pasted (with --dry-run it starts nothing):"
    kept = [f"{key}={value}" for key, value in overrides.items() if key not in best.overrides]
    flags = [] if recipes is None else ["--recipes", str(recipes)]
    yield from _folded(
        [*map(shlex.quote, ["nemo-run", name, *kept, *flags]), *_settings(best.overrides)], "  ", "    ", " \\"
    )


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


def _settings(overrides: Mapping[str, Any]) -> list[str]:
    return [shlex.quote(f"{path}={format_value(value)}") for path, value in overrides.items()]


def _folded(words: Iterable[str], first: str, rest: str, joint: str) -> Iterator[str]:
    """Yield words in lines of the width of a terminal; a word is never cut, and lines end in `joint`."""
    line, is_empty = first, True
    for word in words:
        if not is_empty and len(line) + 1 + len(word) + len(joint) > _WIDTH:
            yield line + joint
            line, is_empty = rest, True
        line += word if is_empty else f" {word}"
        is_empty = False
    yield line
