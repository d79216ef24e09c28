"""Reads the lines of a run's logs, and waits for more."""

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from executors.job_record import read_job_record
from executors.process.folding import FOLDING_SECONDS, LineFolder, new_lines
from executors.process.logs import LogReader, position_of_tail, position_of_time
from neva_recipes.config import RunError
from neva_recipes.run_directory.layout import joined_log, rank_log
from neva_recipes.run_directory.stages import run_title

__all__ = ["read_log"]


def read_log(
    run_dir: Path,
    goes_on: Callable[[], bool],
    poll_seconds: float,
    *,
    rank: int | None,
    since: datetime | None,
    tail: int | None,
    fold: bool,
) -> Iterator[str]:
    """Return the lines of a log, as `Run.logs` does with the same arguments.

    Args:
        run_dir: The run directory.
        goes_on: Says whether to wait for more lines.
        poll_seconds: Seconds between two looks.
        rank: As for `Run.logs`.
        since: As for `Run.logs`.
        tail: As for `Run.logs`.
        fold: As for `Run.logs`.

    Raises:
        RunError: As for `Run.logs`.
    """
    size = read_job_record(run_dir)["world_size"]
    if rank is not None and not 0 <= rank < size:
        raise RunError(f"run {run_title(run_dir)} has no rank {rank}: expected 0 to {size - 1}")
    log = joined_log(run_dir) if rank is None else rank_log(run_dir, rank)
    start = 0
    if since is not None and log.exists() and log.stat().st_size:
        found = position_of_time(log, since.timestamp())
        if found is None:
            instead = "the last N lines" if rank is not None else "one rank's lines, or for the last N"
            raise RunError(f"{log}: the times of its lines were not kept: ask for {instead} instead")
        start = found
    if tail is not None:
        start = max(start, position_of_tail(log, tail))
    folder = LineFolder(size) if fold and rank is None and size > 1 else None
    return _lines(LogReader(log, start), goes_on, poll_seconds, folder)


def _lines(
    reader: LogReader, goes_on: Callable[[], bool], poll_seconds: float, folder: LineFolder | None
) -> Iterator[str]:
    # The state is read before the log, because a run in a final state has written all its lines.
    while goes_on():
        yield from new_lines(reader, folder)
        # Ranks print the same line at slightly different times.
        time.sleep(poll_seconds if folder is None else FOLDING_SECONDS)
    yield from new_lines(reader, folder)
    rest = reader.read_rest()
    yield from rest if folder is None else [*folder.feed(rest), *folder.flush()]
