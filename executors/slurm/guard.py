"""Kills the processes that a rank has started when its task is killed.

The kernel kills a rank whose task has died, but not the processes that the rank had started. Slurm kills them if it
tracks processes by cgroup, but not if it looks for children (proctrack/linuxproc), since their parent has died.
"""

import os
import signal
import time
from pathlib import Path

__all__ = ["start_guard"]

_PATIENCE_SECONDS = 30.0


def start_guard() -> int:
    """Start a guard process that briefly outlives this one; call this before starting threads or other children.

    Returns:
        A descriptor to which to write a session id as text. When it is closed, as by the end of this process, the guard
        kills every remaining process of that session.
    """
    read_end, write_end = os.pipe()
    child = os.fork()
    if child:
        os.close(read_end)
        os.waitpid(child, 0)
        return write_end
    try:
        os.setsid()
        if not os.fork():  # orphaned, so that nobody takes it for a process that a rank has left
            os.close(write_end)
            _guard(read_end)
    finally:
        os._exit(0)


def _guard(descriptor: int) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    # Slurm waits until no process holds the output of the task open.
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.dup2(descriptor, 3)
    os.closerange(4, 65536)
    text = b""
    while part := os.read(3, 64):
        text += part
    if text:
        _kill_session(int(text))


def _kill_session(number: int) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline and (members := _members(number)):
        for pid in members:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)


def _members(session: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            found.append(int(entry.name))
    return found
