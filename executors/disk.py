"""Checks whether the disk has room for the checkpoints of runs, as seen by the machine that starts them."""

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from neva_recipes.config import RunError, how_many
from neva_recipes.plan import Finding, Plan
from neva_recipes.terminal import tell

__all__ = ["disk_finding", "require_space", "tell_of_little_space"]

_GIB, _MIB = 2**30, 2**20


def disk_finding(
    plans: Sequence[Plan], folder: Path, *, there: int = 0, is_new: bool = True, is_planned: bool = False
) -> Finding | None:
    """Return an error if the disk has no room for one checkpoint, a warning if it has none for all that are kept.

    Does not take quotas into account.

    Args:
        plans: The plans of the runs.
        folder: Folder of the runs, which need not exist yet.
        there: Number of checkpoints that the folder already holds.
        is_new: Whether the user can still choose another folder.
        is_planned: Whether nothing is started now: then a folder on a disk that is not here, such as the /lustre of a
            cluster, is not measured, for what this machine has above it is another disk.
    """
    if is_planned and not Path(*folder.absolute().parts[:2]).exists():
        return None
    spaces = [plan.disk for plan in plans if plan.disk is not None and plan.disk.kept != 0]
    if not spaces:
        return None
    free = _free(folder)
    if free is None:
        return None
    largest = max(space.checkpoint for space in spaces)
    elsewhere = "a folder on a larger disk (--runs-dir DIR), or " if is_new else ""
    clean = f"{elsewhere}free some space (nemo-run gc lists what no run needs)"
    if free < largest:
        message = f"{folder}: {_size(free)} of its disk are free, and a checkpoint takes {_size(largest)}"
        return Finding("disk-full", "error", message, advice=f"name {clean}" if is_new else clean, about="machine")
    kept = sum(space.kept or 1 for space in spaces)  # one at least if all are kept
    needed = largest + sum((space.kept or 1) * space.checkpoint for space in spaces)
    replaced = 0 if any(space.kept is None for space in spaces) else min(there, kept)
    if free >= needed - replaced * largest:
        return None
    runs = f" of {len(spaces)} runs" if len(spaces) > 1 else ""
    message = (
        f"{folder}: {_size(free)} of its disk are free, and {how_many(kept, 'checkpoint')}{runs} with one that "
        f"is being written take {_size(needed)}"
    )
    advice = f"keep fewer (checkpoint.save_top_k), {'name' if is_new else 'or'} {clean}"
    return Finding("disk-full", "warning", message, advice=advice, about="machine")


def require_space(plans: Sequence[Plan], folder: Path, *, is_new: bool = True) -> None:
    """Raise `RunError` if the disk has no room for one checkpoint."""
    found = disk_finding(plans, folder, is_new=is_new)
    if found is not None and found.severity == "error":
        raise RunError(found.line())


def tell_of_little_space(plans: Sequence[Plan], folder: Path, *, there: int = 0, is_new: bool = True) -> None:
    """Print a warning if the disk has no room for all checkpoints that the runs keep."""
    found = disk_finding(plans, folder, there=there, is_new=is_new)
    if found is not None and found.severity == "warning":
        tell("warning", found.line())


def _free(folder: Path) -> int | None:
    """Return the free bytes on the disk where a folder is or will be; `None` if unknown or on no disk, as /proc."""
    for place in (folder, *folder.parents):
        with contextlib.suppress(OSError):  # the folder is not there yet
            usage = shutil.disk_usage(place)
            return usage.free if usage.total else None
    return None


def _size(count: float) -> str:
    return f"{count / _GIB:,.1f} GiB" if count >= _GIB else f"{count / _MIB:,.1f} MiB"
