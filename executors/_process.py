"""Linux processes: telling one from another that got its number, and leaving none behind. Standard library only."""

import ctypes
import os
import random
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

__all__ = [
    "IDENTITY",
    "become_subreaper",
    "describe_exit",
    "die_with_parent",
    "identify",
    "is_alive",
    "kill_children",
    "memory_kills",
    "pick_port",
]

IDENTITY = MappingProxyType({"pid": int, "pid_start": int, "boot_id": str, "hostname": str})
"""What `identify` returns."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

# Loaded at import: a forked child that is about to exec must not open libraries.
_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def become_subreaper() -> None:
    """Make this process the new parent of every descendant whose own parent dies."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(number: signal.Signals, parent: int) -> None:
    """Have the kernel send `number` to this process when its parent dies, or exit now if `parent` is gone already."""
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)


def _read_stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the state on (its third), or none without such a process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name before it is in parentheses and may hold anything, parentheses too.
    return text[text.rindex(")") + 2 :].split()


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def identify(pid: int) -> dict[str, Any]:
    """Return what tells a living process from every other, later ones with the same number included."""
    stat = _read_stat(pid)
    if stat is None:
        raise ProcessLookupError(pid)
    return {"pid": pid, "pid_start": int(stat[19]), "boot_id": _boot_id(), "hostname": socket.gethostname()}


def is_alive(identity: Mapping[str, Any]) -> bool | None:
    """Return whether the process of `identify` still runs; none if it belongs to another machine."""
    if identity.get("hostname") != socket.gethostname():
        return None
    stat = _read_stat(int(identity["pid"]))
    return (
        stat is not None
        and stat[0] not in "ZX"
        and int(stat[19]) == identity["pid_start"]
        and identity["boot_id"] == _boot_id()
    )


def _children() -> list[int]:
    own = str(os.getpid())
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if (stat := _read_stat(pid)) is not None and stat[1] == own]


def kill_children(limit: float = 30.0) -> None:
    """Kill and reap every descendant of this process, which must be a subreaper.

    Only direct children are signalled: their numbers cannot pass to other processes before they are reaped here, and
    their own children become ours as they die.

    Args:
        limit: Seconds after which processes that cannot die (waiting inside the kernel) are given up.
    """
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        for pid in _children():
            os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)


def memory_kills() -> int:
    """Return how many processes of this one's group (cgroup) the kernel has killed to get memory; 0 if it is not told.

    The counter `oom_kill` of memory.events (cgroup v2) or memory.oom_control (v1). A container sees its own group as
    the root.
    """
    total = 0
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, name = (
            ("/sys/fs/cgroup/memory", "memory.oom_control") if controllers else ("/sys/fs/cgroup", "memory.events")
        )
        for path in (Path(f"{root}{group}", name), Path(root, name)):
            try:
                counters = dict(entry.split() for entry in path.read_text(encoding="ascii").splitlines())
            except OSError:
                continue
            total += int(counters.get("oom_kill", 0))
            break
    return total


def describe_exit(code: int, *, out_of_memory: bool = False) -> str:
    """Return the words for how a process ended.

    Args:
        code: Its exit code; negative codes are signals, as in `subprocess`.
        out_of_memory: Whether a SIGKILL is known to have been the kernel's, for want of memory.
    """
    if code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    hint = f": out of memory{'' if out_of_memory else '?'}" if -code == signal.SIGKILL else ""
    return f"was killed by signal {-code} ({name}{hint})"


def pick_port() -> int:
    """Return a TCP port that can be bound, if possible one that the kernel hands out for no outgoing connection."""
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split())
    # Another supervisor may be choosing at this moment, so the order must differ between processes.
    candidates = random.Random().sample(range(10000, 65536), 65536 - 10000)
    for port in sorted(candidates, key=lambda port: low <= port <= high):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise OSError("no TCP port is free for MASTER_PORT")
