"""Queries and stops several runs with as few requests to their backends as possible."""

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from executors.runs import standing
from executors.runs.run import Run
from executors.runs.standing import POLL_SECONDS
from neva_recipes.config import RunError

__all__ = ["ask_together", "cancel_together", "request_cancel_together", "request_stop_together"]


def ask_together(runs: Iterable[Run]) -> None:
    """Query the states of runs, with one query per backend that supports it; `status` then uses the answers."""
    standing.ask_together(run._standing for run in runs)


def cancel_together(
    runs: Sequence[Run], force: bool = False, *, save: bool = False
) -> Iterator[tuple[Run, RunError | None]]:
    """Stop runs, with as few requests to each backend as possible.

    Yields the runs in their order, each when all of its processes have ended. Runs that cannot be stopped come last,
    with their errors.

    Args:
        runs: The runs.
        force: Give the ranks no time to end by themselves.
        save: Let the ranks save a checkpoint first, as `Run.cancel` does.
    """
    refused = request_stop_together(runs) if save else request_cancel_together(runs, force)
    left = [run for run in runs if run.path not in refused]
    while left:
        ask_together(left)
        while left and left[0].has_ended():
            yield left.pop(0), None
        time.sleep(POLL_SECONDS if left else 0)
    yield from ((run, refused[run.path]) for run in runs if run.path in refused)


def request_cancel_together(runs: Sequence[Run], force: bool = False) -> dict[Path, RunError]:
    """Ask runs to stop, and return at once; returns the error of each run that cannot be asked, by run directory."""
    return standing.request_cancel_together([run._standing for run in runs], force)


def request_stop_together(runs: Iterable[Run]) -> dict[Path, RunError]:
    """Ask runs to save a checkpoint and to end, and return at once; returns the errors as `request_cancel_together`."""
    return standing.request_stop_of_each(run._standing for run in runs)
