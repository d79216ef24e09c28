"""Reads the lines of a run's logs, and waits for more."""

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from executors.job_record import read_job_record
from executors.process.folding import FOLDING_SECONDS, LineFolder, new_lines
from executors.process.logs import LogReader, position_of_tail, position_of_time
from executors.runs.standing import POLL_SECONDS
from neva_recipes.config import RunError
from neva_recipes.run_directory.layout import joined_log, rank_log
from neva_recipes.run_directory.stages import run_title

__all__ = ["read_log"]


def read_log(
    run_dir: Path,
    has_ended: Callable[[], bool],
    *,
    follow: bool,
    rank: int | None,
    since: datetime | None,
    tail: int | None,
    fold: bool,
) -> Iterator[str]:
    """Return the lines of a log, as `Run.logs` does with the same arguments.

    Args:
        run_dir: The run directory.
        has_ended: Says whether the run has ended.
        follow: As for `Run.logs`, as are those below.
        rank: The rank.
        since: Time of the first line.
        tail: Number of lines.
        fold: Whether to merge equal lines.

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
    return _lines(LogReader(log, start), has_ended, follow, folder)


def _lines(reader: LogReader, has_ended: Callable[[], bool], follow: bool, folder: LineFolder | None) -> Iterator[str]:
    # The state is read before the log, because a run in a final state has written all its lines.
    while follow and not has_ended():
        yield from new_lines(reader, folder)
        # Ranks print the same line at slightly different times.
        time.sleep(POLL_SECONDS if folder is None else FOLDING_SECONDS)
    yield from new_lines(reader, folder)
    rest = reader.read_rest()
    yield from rest if folder is None else [*folder.feed(rest), *folder.flush()]
