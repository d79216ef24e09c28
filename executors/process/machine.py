"""Detects memory and cores of this machine for training without a GPU."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from executors.process.gpu import has_gpu
from neva_recipes.plan.fitting.machine import CpuMachine

__all__ = ["this_cpu_machine"]

_MEMORY = Path("/proc/meminfo")
_GROUP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def this_cpu_machine(env: Mapping[str, str]) -> CpuMachine | None:
    """Return this machine if a run here gets no GPU; `None` if it gets one.

    Args:
        env: Variables of the run in addition to those of this process.
    """
    if has_gpu({**os.environ, **env}):
        return None
    return CpuMachine(min(_limits(), default=None), len(os.sched_getaffinity(0)))


def _limits() -> Iterator[int]:
    """Yield every limit on the memory of this process, in bytes: the machine's memory and the limits of its cgroups."""
    if total := re.search(r"^MemTotal:\s*(\d+) kB", _text(_MEMORY), re.MULTILINE):
        yield int(total[1]) * 1024
    for line in _text(_GROUP).splitlines():
        _, controllers, name = line.split(":", 2)
        # cgroup v2 has one tree, v1 one per controller; a container may see its own cgroup as the root.
        root, file = (_GROUPS, "memory.max") if not controllers else (_GROUPS / "memory", "memory.limit_in_bytes")
        if controllers and "memory" not in controllers.split(","):
            continue
        path = root / name.lstrip("/")
        for folder in (path, *path.parents):
            if folder.is_relative_to(root) and (limit := _text(folder / file).strip()).isdigit():
                yield int(limit)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
