"""Ends what a rank has started when its task is killed, which Slurm may do without its daemon seeing the rest.

The kernel kills a rank whose task is gone, and nothing kills what the rank had started. Slurm does where it tracks
processes by cgroup, and does not for those whose parent is gone where it looks for children (proctrack/linuxproc).
"""

import os
import signal
import time
from pathlib import Path

__all__ = ["start_guard"]

_PATIENCE_SECONDS = 30.0


def start_guard() -> int:
    """Start a process that outlives this one for a moment; to be called before there are other threads or children.

    Returns:
        A descriptor that takes the number of a session, as text. When it is closed, as by the end of this process,
        every process left of that session is killed.
    """
    read_end, write_end = os.pipe()
    child = os.fork()
    if child:
        os.close(read_end)
        os.waitpid(child, 0)
        return write_end
    try:
        os.setsid()
        if not os.fork():  # nobody's child, so nobody takes it for what a rank has left
            os.close(write_end)
            _guard(read_end)
    finally:
        os._exit(0)


def _guard(descriptor: int) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    # Slurm waits until nobody can write to the output of the task any more.
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
