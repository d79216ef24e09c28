"""Reads the metrics that the worker of a run has logged: metrics/metrics.csv, whole or only its end."""

import csv
import math
import os
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from neva_recipes.run_directory.layout import metrics_file
from neva_recipes.run_directory.progress import read_trained_steps

__all__ = [
    "TRAIN_LOSS",
    "VAL_LOSS",
    "VAL_PERPLEXITY",
    "Curve",
    "Point",
    "file_of_metric",
    "last_loss",
    "metric_of_file",
    "read_metrics",
    "trained_steps",
    "validation_names",
]

TRAIN_LOSS, VAL_LOSS, VAL_PERPLEXITY = "reduced_train_loss", "val_loss", "val_perplexity"

_TAIL_BYTES = 16384


_ENDINGS = re.compile(r"(?<=.)(\.(jsonl?|txt|text|parquet|idx|gz|zst))+$", re.IGNORECASE)
"""What says how a data file is written, and nothing of what is in it."""


def metric_of_file(metric: str, file: str | None) -> str:
    """Return the name of a metric of one validation file, or of all of them together if `file` is `None`."""
    return metric if file is None else f"{metric}/{file}"


def file_of_metric(name: str, metric: str) -> str | None:
    """Return the validation file that a logged metric is of; `None` if it is another one, or of all files."""
    return name.removeprefix(f"{metric}/") if name.startswith(f"{metric}/") else None


def validation_names(paths: Sequence[str]) -> list[str]:
    """Return the name of each validation file in its metrics.

    It is that of the file without the endings of its format, with as many folders before it as make it distinct; of
    files that differ by these endings alone it is the whole name.
    """
    plain = [(*Path(path).parts[:-1], _ENDINGS.sub("", Path(path).name)) for path in paths]
    alike = {own: {path for path, other in zip(paths, plain, strict=True) if other == own} for own in plain}
    parts = [Path(path).parts if len(alike[own]) > 1 else own for path, own in zip(paths, plain, strict=True)]
    names: list[str] = []
    for own in parts:
        ends = ["/".join(own[-depth:]) for depth in range(1, len(own) + 1)]
        others = [other for other in parts if other != own]
        distinct = (end for depth, end in enumerate(ends, 1) if all(other[-depth:] != own[-depth:] for other in others))
        names.append(next(distinct, ends[-1]))
    return names


class Point(NamedTuple):
    """A logged value.

    Attributes:
        step: Optimizer steps taken.
        value: The value.
    """

    step: int
    value: float


@dataclass(frozen=True)
class Curve:
    """A metric over the steps at which it was logged, as arrays that NumPy and Matplotlib accept.

    Attributes:
        steps: Optimizer steps taken, ascending.
        values: The value at each step.
    """

    steps: "array[int]"
    values: "array[float]"

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def last(self) -> Point:
        """The newest value."""
        return Point(self.steps[-1], self.values[-1])

    @property
    def lowest(self) -> Point:
        """The lowest value; the newest of equal ones, as of checkpoints."""
        index = min(range(len(self)), key=lambda each: (self.values[each], -each))
        return Point(self.steps[index], self.values[index])


def read_metrics(run_dir: Path) -> dict[str, Curve]:
    """Return the metrics of a run by name; empty before the first is logged.

    A curve has the steps at which its metric was logged, at least one; skips values that are not finite numbers.
    """
    curves: dict[str, Curve] = {}
    try:
        with metrics_file(run_dir).open(newline="", encoding="utf-8", errors="replace") as file:
            for row in csv.DictReader(file):
                step = row.pop("step", None) or ""
                for name, text in row.items() if step.isdecimal() else ():
                    if isinstance(text, str) and (value := _finite(text)) is not None:
                        curve = curves.setdefault(name, Curve(array("q"), array("d")))
                        curve.steps.append(int(step))
                        curve.values.append(value)
    except (OSError, csv.Error):
        return curves
    return curves


def trained_steps(run_dir: Path) -> int | None:
    """Return how many steps a run has trained; `None` before the first."""
    row = _last_row(run_dir, "step")
    return read_trained_steps(run_dir, int(row["step"]) if row else None)


def last_loss(run_dir: Path) -> float | None:
    """Return the last training loss; `None` if there is none yet, or none near the end of the file."""
    row = _last_row(run_dir, TRAIN_LOSS)
    return _finite(row[TRAIN_LOSS]) if row else None


def _last_row(run_dir: Path, name: str) -> dict[str, str]:
    """Return the last row that has a value in a column, from the end of the file; empty if there is none.

    The file may be growing: ignores a last line without a newline.
    """
    try:
        with metrics_file(run_dir).open("rb") as file:
            header = file.readline()
            start = max(file.tell(), os.fstat(file.fileno()).st_size - _TAIL_BYTES)
            file.seek(start)
            lines = file.read().decode(errors="replace").split("\n")[:-1]
    except OSError:
        return {}
    columns = next(csv.reader([header.decode(errors="replace").rstrip("\r\n")]), [])
    if "step" not in columns or name not in columns:
        return {}
    # The first line of the tail may be incomplete; then it has too few columns, or is never reached.
    for row in csv.reader(reversed(lines)):
        found = dict(zip(columns, row, strict=False))
        if len(row) == len(columns) and found["step"].isdecimal() and found[name]:
            return found
    return {}


def _finite(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
