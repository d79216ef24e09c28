"""Finds out why a run has failed, from the exit codes of its ranks and from failure.json. Standard library only."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from neva_recipes.run_directory.exit_codes import CAUSES, EXIT_MISTAKE
from neva_recipes.run_directory.failure import read_failure

__all__ = ["Reported", "cause_of", "reported_failure"]


class Reported(NamedTuple):
    """A failure that a rank has reported.

    Attributes:
        rank: The rank.
        exit_code: The exit code of the run; `None` for that of the rank.
        line: The message for users.
    """

    rank: int
    exit_code: int | None
    line: str


class _End(Protocol):
    @property
    def code(self) -> int:
        """The exit code as in `subprocess`: the negative number of a signal that has killed the process."""


E = TypeVar("E", bound=_End)


def cause_of(failed: Iterable[E]) -> E | None:
    """Return the failure that has caused the others: of the first rank that was killed, else of the first rank.

    Args:
        failed: The ends of the failed ranks, in order of time.
    """
    ends = list(failed)
    return next((end for end in ends if -end.code in CAUSES), next(iter(ends), None))


def reported_failure(run_dir: Path, killed: int | None) -> Reported | None:
    """Return the failure that a rank has reported; `None` if there is none or it is not the cause.

    When a rank was killed, other ranks only report that they have lost it.

    Args:
        run_dir: The run directory.
        killed: The rank that was killed; `None` if none was.
    """
    report = read_failure(run_dir)
    if report is None or killed not in (None, report[0]):
        return None
    rank, kind, message = report
    is_whole = kind in ("user", "stages")  # such a message is clear without the rank
    return Reported(rank, EXIT_MISTAKE if kind == "user" else None, message if is_whole else f"rank {rank}: {message}")
