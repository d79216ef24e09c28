"""Draws curves of runs, in the terminal or as a picture: `nemo-run plot RUN ...`."""

import argparse
import contextlib
import io
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neva_recipes.cli.arguments import StrictParser, UsageError, add_runs_dir, path_argument
from neva_recipes.cli.report.chart import Series, chart_lines, suits_log
from neva_recipes.config import RunError, UserError, make_folder_of, suggest
from neva_recipes.run_directory.metrics import TRAIN_LOSS, VAL_LOSS
from neva_recipes.terminal import one_line, print_document, print_text, shows_colour, tell

if TYPE_CHECKING:
    from executors import Curve, Run

__all__ = ["plot_command"]

_COLOURS = (36, 33, 35, 32, 34, 31)
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_WIDEST, _SMALLEST = 160, (40, 12)
_LEAST_CHART = 8
_PIXELS_PER_INCH = 100
_METRICS = {"loss": TRAIN_LOSS}
"""Metrics that have another name in progress lines and tables."""

_OURS = "nemo-run plot"
"""Mark in the metadata of our pictures; only a file with this mark is replaced."""


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = StrictParser(
        "nemo-run plot",
        description=(
            "Training and validation loss of runs, drawn in the terminal or as a PNG picture.\n"
            "For a pipeline or a sweep, every stage is drawn."
        ),
    )
    parser.add_argument("run", metavar="RUN", nargs="+", help="name of a run, pattern of names, or path")
    parser.add_argument("--metric", metavar="NAME", help="another metric instead, such as lr or grad_norm")
    parser.add_argument("--output", metavar="FILE", type=path_argument, help="PNG file to write instead")
    add_runs_dir(parser)
    arguments = parser.parse(argv)
    if arguments.output is not None and arguments.output.suffix != ".png":
        raise UsageError(f"--output {arguments.output}: expected a name that ends in .png")
    if arguments.output is not None and _is_of_others(arguments.output):
        raise UsageError(f"--output {arguments.output}: exists already, and was not made by nemo-run plot")
    return arguments


def plot_command(argv: Sequence[str]) -> int:
    """Draw curves of runs: `nemo-run plot RUN ... [--metric NAME] [--output FILE.png]`."""
    arguments = _parse(argv)
    from executors import find_runs

    found: list[tuple[str, Run, Mapping[str, str], dict[str, Curve]]] = []
    nothing = []
    for word in arguments.run:
        runs_of_word = find_runs(word, arguments.runs_dir)
        logged = list(_with_metrics(runs_of_word))
        found += logged
        nothing += [] if logged else [f"{word}: {_why_nothing(runs_of_word)}"]
    if not found:
        raise RunError("; ".join(nothing))
    for line in nothing:
        tell("note", line)
    names_there = Counter(name for name, _ in {(name, run.path) for name, run, *_ in found})
    shown = [(str(run.path) if names_there[name] > 1 else name, point, metrics) for name, run, point, metrics in found]
    runs = {name: metrics for name, _, metrics in shown}
    points = {name: point for name, point, _ in shown}
    names = (TRAIN_LOSS, VAL_LOSS) if arguments.metric is None else (_METRICS.get(arguments.metric, arguments.metric),)
    curves = {name: {metric: known[metric] for metric in names if metric in known} for name, known in runs.items()}
    if not any(curves.values()):
        available = sorted({metric for known in runs.values() for metric in known})
        hint = suggest(names[0], available) or f": expected one of {', '.join(available)}"
        raise UsageError(f"{names[0]}: was not logged by {', '.join(curves)}{hint}")
    curves = {name: found for name, found in curves.items() if found}
    points = {name: points[name] for name in curves}
    title = "loss" if arguments.metric is None else arguments.metric
    if arguments.output is not None:
        _write(arguments.output, _picture(curves, points, title))
        print_text(f"written: {arguments.output}")
        return 0
    encoding = (sys.stdout.encoding or "").lower()
    lines = _screen(curves, points, title, has_unicode=encoding.startswith("utf"), has_colour=shows_colour())
    print_document("".join(f"{line}\n" for line in lines))
    return 0


def _with_metrics(runs: "Sequence[Run]") -> "Iterator[tuple[str, Run, Mapping[str, str], dict[str, Curve]]]":
    """Yield name, run, swept settings and metrics of each run, or of its stages, if it has logged any."""
    from executors.pipelines.directory import settings_of, stage_run
    from executors.pipelines.spec import is_pipeline, read_spec

    for run in runs:
        stages = [(run.name, run)]
        if is_pipeline(run.path):
            specs = read_spec(run.path).stages
            stages = [(f"{run.name}/{stage.name}", stage_run(run.path, stage.name)) for stage in specs]
        yield from (
            (name, stage, settings_of(stage), metrics) for name, stage in stages if (metrics := stage.metrics())
        )


def _why_nothing(runs: "Sequence[Run]") -> str:
    """Return that runs have no metrics; for a single run that has ended, also how it ended."""
    status = runs[0].status() if len(runs) == 1 else None
    if status is None or status.exit_code is None:
        return "has logged no metrics yet"
    end = f"{status.state}: {status.reason}" if status.reason else status.state
    return f"has logged no metrics ({end})"


def _screen(
    curves: "Mapping[str, Mapping[str, Curve]]",
    points: Mapping[str, Mapping[str, str]],
    title: str,
    *,
    has_unicode: bool,
    has_colour: bool,
) -> Iterator[str]:
    """Yield the lines of a chart with its legend, for the size of the terminal."""
    from neva_recipes.table import table_lines

    width, height = (max(pair) for pair in zip(shutil.get_terminal_size(), _SMALLEST, strict=True))
    # Without colours, the dots of several runs look the same.
    has_braille = has_unicode and (has_colour or len(curves) == 1)
    series, legend = [], []
    metrics = list(dict.fromkeys(metric for found in curves.values() for metric in found))
    for number, (name, found) in enumerate(curves.items()):
        letter, colour = _LETTERS[number % len(_LETTERS)], _COLOURS[number % len(_COLOURS)]
        marks = {}
        for metric, curve in found.items():
            is_sparse = metric == VAL_LOSS and len(metrics) > 1
            mark = letter.upper() if is_sparse else letter
            marks[metric] = "dots" if has_braille and not is_sparse else mark
            series.append(Series(curve.steps, curve.values, mark, colour, is_sparse))
        cells = [
            f"{marks[metric]} {found[metric].last.value:.4g}, lowest {found[metric].lowest.value:.4g}"
            if metric in found
            else "-"
            for metric in metrics
        ]
        legend.append([name, *cells])
    is_log = suits_log(series)
    yield f"{one_line(title)} by step{' (logarithmic)' if is_log else ''}"
    key = list(table_lines([["RUN", *metrics], *legend], 1 + len(metrics), [*points.values()]))
    lines = max(_LEAST_CHART, height - 2 - len(key))
    width = min(width, _WIDEST)
    yield from chart_lines(series, width, lines, is_log=is_log, has_braille=has_braille, has_colour=has_colour)
    yield from _coloured(key, list(curves)) if has_colour else key


def _coloured(key: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    """Yield the legend with each line in the colour of its run; a long name has a line of its own."""
    number = -1
    for line in key:
        if number + 1 < len(names) and line.startswith(one_line(names[number + 1])):
            number += 1
        yield line if number < 0 else f"\x1b[{_COLOURS[number % len(_COLOURS)]}m{line}\x1b[0m"


def _picture(curves: "Mapping[str, Mapping[str, Curve]]", points: Mapping[str, Mapping[str, str]], title: str) -> bytes:
    """Return a PNG picture of curves.

    Raises:
        UsageError: Matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise UsageError("--output needs Matplotlib: pip install 'neva-recipes[plot]'") from None
    from executors.pipelines.directory import stage_label

    figure = Figure(figsize=(10, 6), dpi=_PIXELS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    drawn = []
    for number, (name, found) in enumerate(curves.items()):
        for metric, curve in found.items():
            is_sparse = metric == VAL_LOSS and len(found) > 1
            label = one_line(f"{stage_label(name, points[name])} {metric}").replace("$", r"\$")
            style = {"linestyle": "--", "marker": "o", "markersize": 4} if is_sparse else {"linewidth": 1.2}
            axes.plot(curve.steps, curve.values, color=f"C{number % 10}", label=label, **style)
            drawn.append(Series(curve.steps, curve.values, "", 0))
    if suits_log(drawn):
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel(title.replace("$", r"\$"))
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": _OURS})
    return buffer.getvalue()


def _is_of_others(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _OURS.encode() not in file.read(1024)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def _write(path: Path, data: bytes) -> None:
    """Write a file completely, or leave the old one.

    Raises:
        UserError: The file cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        make_folder_of(path)
        unfinished.write_bytes(data)
        unfinished.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise UserError(f"--output {path}: cannot be written: {error.strerror}") from None
