"""Checks whether all nodes of a job can see the folder of its runs, as far as its path and its disk tell."""

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

from neva_recipes.plan import Finding, Plan

__all__ = ["sharing_finding"]

_MOUNTS = Path("/proc/self/mounts")

_OF_MEMORY = frozenset({"tmpfs", "ramfs"})
"""Types of file systems that lie in the memory of one machine."""

_OF_A_MACHINE = frozenset({"btrfs", "ext2", "ext3", "ext4", "overlay", "xfs", "zfs"})
"""Types of file systems on disks that machines have each by itself."""

_EACH_HAS_ITS_OWN = (Path("/dev/shm"), Path("/tmp"), Path("/var/tmp"))
"""Folders that every machine has."""


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
        message = f"{folder}: on most clusters each node has such a folder of its own, and all {nodes} nodes need this one"
        return Finding("runs-dir-unshared", "note", message, advice=advice, about="machine")
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
