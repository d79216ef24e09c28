"""How far a run has come, from the metrics its worker writes."""

import contextlib
import csv
import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["last_step", "last_values"]

_TAIL_BYTES = 65536


def last_step(run_dir: Path) -> int | None:
    """Return the last step in metrics/metrics.csv; none if there is none yet.

    The file may be growing: a last line without its end is left aside.
    """
    try:
        with (run_dir / "metrics" / "metrics.csv").open("rb") as file:
            header = file.readline()
            start = max(file.tell(), os.fstat(file.fileno()).st_size - _TAIL_BYTES)
            file.seek(start)
            lines = file.read().decode(errors="replace").split("\n")[:-1]
    except OSError:
        return None
    columns = next(csv.reader([header.decode(errors="replace").rstrip("\r\n")]), [])
    if "step" not in columns:
        return None
    index = columns.index("step")
    # The first line of a tail may be the end of a longer one; it has too few columns then, or is never reached.
    for row in csv.reader(reversed(lines)):
        if len(row) == len(columns) and row[index].isdigit():
            return int(row[index])
    return None


def last_values(run_dir: Path, names: Iterable[str]) -> dict[str, float]:
    """Return the last value of each of some columns of metrics/metrics.csv; a column that is not there is left out."""
    found: dict[str, float] = {}
    try:
        with (run_dir / "metrics" / "metrics.csv").open(newline="", encoding="utf-8", errors="replace") as file:
            for row in csv.DictReader(file):
                for name in names:
                    with contextlib.suppress(TypeError, ValueError):  # not logged at that step
                        found[name] = float(row.get(name) or "")
    except OSError:
        return found
    return found
