"""How far a run has come, from the metrics its worker writes."""

import csv
import os
from pathlib import Path

__all__ = ["last_step"]

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
