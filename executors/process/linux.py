"""Linux processes: kills every descendant, and describes exit codes. Standard library only."""

import ctypes
import os
import random
import signal
import socket
import time
from pathlib import Path

from neva_recipes.run_directory.processes import process_stat

__all__ = [
    "become_subreaper",
    "describe_exit",
    "die_with_parent",
    "kill_children",
    "memory_kills",
    "pick_port",
]

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

# Loaded at import, because a child between fork and exec must not open libraries.
_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def become_subreaper() -> None:
    """Make this process the new parent of every descendant whose own parent dies."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(number: signal.Signals, parent: int) -> None:
    """Have the kernel send `number` to this process when its parent dies; exit now if `parent` has already died."""
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)


def _children() -> list[int]:
    own = str(os.getpid())
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if (stat := process_stat(pid)) is not None and stat[1] == own]


def kill_children(limit: float = 30.0) -> None:
    """Kill and reap every descendant of this process, which must be a subreaper.

    Only direct children are signalled: their process ids cannot be reused before they are reaped here, and their own
    children become children of this process when they die.

    Args:
        limit: Seconds after which to give up on processes that cannot die (in uninterruptible sleep).
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
    """Return how many processes of this process's cgroup the kernel has killed for lack of memory; 0 if unknown.

    Reads the counter `oom_kill` of memory.events (cgroup v2) or memory.oom_control (v1). A container sees its own
    cgroup as the root.
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


_LESS_MEMORY = "a smaller data.micro_batch_size, fewer data.num_workers or fewer trainer.devices on a machine take less"


def describe_exit(code: int, *, out_of_memory: bool = False) -> str:
    """Return how a process ended, in words.

    Args:
        code: Its exit code; negative codes are signals, as in `subprocess`.
        out_of_memory: Whether a SIGKILL is known to be from the kernel's out-of-memory killer.
    """
    if code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    hint = f": out of memory{'' if out_of_memory else '?'}" if -code == signal.SIGKILL else ""
    advice = f": {_LESS_MEMORY}" if hint and out_of_memory else ""
    return f"was killed by signal {-code} ({name}{hint}){advice}"


def pick_port() -> int:
    """Return a TCP port that can be bound, if possible outside the kernel's range for outgoing connections."""
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split())
    # Another supervisor may be choosing a port at this moment, so the order must differ between processes.
    candidates = random.Random().sample(range(10000, 65536), 65536 - 10000)
    for port in sorted(candidates, key=lambda port: low <= port <= high):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise OSError("no TCP port is free for MASTER_PORT")
