"""Checks whether the disk has room for checkpoints and is one of all nodes, as seen by the machine that starts runs."""

import contextlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from neva_recipes.config import RunError, how_many
from neva_recipes.plan import Finding, Plan
from neva_recipes.terminal import tell

__all__ = ["disk_finding", "require_space", "sharing_finding", "tell_of_little_space"]

_GIB, _MIB = 2**30, 2**20

_MOUNTS = Path("/proc/self/mounts")

_OF_MEMORY = frozenset({"tmpfs", "ramfs"})
"""Types of file systems that lie in the memory of one machine."""

_OF_A_MACHINE = frozenset({"btrfs", "ext2", "ext3", "ext4", "overlay", "xfs", "zfs"})
"""Types of file systems on disks that machines have each by itself."""

_EACH_HAS_ITS_OWN = (Path("/dev/shm"), Path("/tmp"), Path("/var/tmp"))
"""Folders that every machine has."""


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


def sharing_finding(plans: Sequence[Plan], folder: Path) -> Finding | None:
    """Return a warning if a job of several nodes writes to the memory of one, a note if to a folder that each has.

    Args:
        plans: The plans of the runs.
        folder: Folder of the runs, which need not exist yet.
    """
    layouts = [plan.layout for plan in plans if plan.layout is not None]
    nodes = max((layout.num_nodes for layout in layouts), default=1)
    is_refused = any(each.code == "executor" for plan in plans for each in plan.findings)  # such as on one machine
    if nodes == 1 or is_refused:
        return None
    place = folder.resolve()
    kind = _file_system(place)
    advice = "name a folder that all nodes see (--runs-dir DIR)"
    if kind in _OF_MEMORY or place.is_relative_to(_EACH_HAS_ITS_OWN[0]):
        message = f"{folder}: lies in the memory of one machine, where no other of the {nodes} nodes sees it"
        return Finding("runs-dir-unshared", "warning", message, advice=advice, about="machine")
    if kind in (None, *_OF_A_MACHINE) and any(map(place.is_relative_to, _EACH_HAS_ITS_OWN)):
        message = f"{folder}: each node of a cluster has such a folder of its own, and all {nodes} nodes need this one"
        return Finding("runs-dir-unshared", "note", message, advice=advice, about="machine")
    return None


def _free(folder: Path) -> int | None:
    """Return the free bytes on the disk where a folder is or will be; `None` if unknown or on no disk, as /proc."""
    for place in (folder, *folder.parents):
        with contextlib.suppress(OSError):  # the folder is not there yet
            usage = shutil.disk_usage(place)
            return usage.free if usage.total else None
    return None


def _file_system(place: Path) -> str | None:
    """Return the type of the file system of a path, such as `ext4`; `None` where the system does not tell."""
    found: tuple[int, str] | None = None
    with contextlib.suppress(OSError):
        for line in _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            _, point, kind, *_ = line.split(" ")
            # Blanks and the like stand there as octal numbers.
            mounted = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point))
            depth = len(mounted.parts)
            # Of several mounts on one point the last one counts.
            if place.is_relative_to(mounted) and (found is None or depth >= found[0]):
                found = (depth, kind)
    return None if found is None else found[1]


def _size(count: float) -> str:
    return f"{count / _GIB:,.1f} GiB" if count >= _GIB else f"{count / _MIB:,.1f} MiB"
