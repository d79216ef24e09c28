"""The state of a run for readers of its checkpoints: state.json, and whether a local supervisor is alive."""

from pathlib import Path
from typing import NamedTuple

from neva_recipes.run_directory.layout import CHECKPOINTS, JOB_FILE, STATE_FILE
from neva_recipes.run_directory.names import list_checkpoints
from neva_recipes.run_directory.processes import IDENTITY, is_alive
from neva_recipes.run_directory.stages import pipeline_of
from neva_recipes.run_directory.state import ACTIVE, read_json

__all__ = ["SUPERVISOR_GONE", "RunStanding", "given_name", "lacks_checkpoint", "run_standing"]

SUPERVISOR_GONE = "its supervisor is gone: killed, or the machine went down"
"""The reason in the state of a lost run."""

_ENDED_EARLY = {"failed": "it failed", "cancelled": "it was cancelled", "lost": "it is lost"}


class RunStanding(NamedTuple):
    """The state of a run.

    Attributes:
        state: Such as `running`, `cancelled`, `succeeded` or `lost`.
        reason: Why it has this state; `None` if no reason is written.
    """

    state: str
    reason: str | None


def given_name(run: Path) -> str | None:
    """Return the name that a run was started with, given its directory; `None` if unknown.

    This is the name of its recipe or of the user's recipe function, or one that the user chose. That of a stage is
    PIPELINE/STAGE, and that of a point RECIPE.sweep/NUMBER.
    """
    if (pipeline := pipeline_of(run)) is not None:
        whole = given_name(pipeline)
        return None if whole is None else f"{whole}/{run.name}"
    try:
        name = read_json(run / JOB_FILE)["name"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return name if isinstance(name, str) else None


def run_standing(run: Path) -> RunStanding | None:
    """Return the state of a run, given its directory; `None` if its state.json cannot be read.

    A run is lost if its supervisor was a process of this machine and has died. Runs elsewhere are not checked.
    """
    try:
        written = read_json(run / STATE_FILE)
        state, reason, supervisor = written["state"], written.get("reason"), written.get("supervisor", {})
        if state in ACTIVE and IDENTITY.keys() <= supervisor.keys() and is_alive(supervisor) is False:
            return RunStanding("lost", SUPERVISOR_GONE)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return RunStanding(state, reason if isinstance(reason, str) else None) if isinstance(state, str) else None


def lacks_checkpoint(run: Path) -> str:
    """Return the message about a run without a checkpoint: it has none yet, or has ended before the first."""
    standing = run_standing(run)
    earlier = _earlier_with_checkpoint(run)
    other = "" if earlier is None else f"; {earlier}, an earlier run of its name, has one"
    if standing is None or standing.state not in _ENDED_EARLY:
        return f"the run has no checkpoint yet{other}"
    why = _ENDED_EARLY[standing.state] + (f": {standing.reason}" if standing.reason else "")
    return f"the run has no checkpoint ({why}){other}"


def _earlier_with_checkpoint(run: Path) -> str | None:
    """Return the newest run of the same name before a run that has a checkpoint; `None` if there is none."""
    name = given_name(run)
    if name is None or pipeline_of(run) is not None:
        return None
    try:
        beside = [path for path in run.parent.iterdir() if path.name < run.name and path.name.startswith(f"{name}-")]
    except OSError:
        return None
    for path in sorted(beside, reverse=True):
        if given_name(path) == name and list_checkpoints(path / CHECKPOINTS):
            return path.name
    return None
