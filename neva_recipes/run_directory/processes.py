"""Identifies a process of this machine uniquely, even if its process id is reused."""

import socket
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

__all__ = ["IDENTITY", "identify", "is_alive", "process_stat"]

IDENTITY = MappingProxyType({"pid": int, "pid_start": int, "boot_id": str, "hostname": str})
"""Keys and types of the result of `identify`."""


def process_stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the third one (the state) on, or `None` without such a process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the name in parentheses, which may itself hold parentheses.
    return text[text.rindex(")") + 2 :].split()


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def identify(pid: int) -> dict[str, Any]:
    """Return an identity of a living process that no other process has, even with the same process id later."""
    stat = process_stat(pid)
    if stat is None:
        raise ProcessLookupError(pid)
    return {"pid": pid, "pid_start": int(stat[19]), "boot_id": _boot_id(), "hostname": socket.gethostname()}


def is_alive(identity: Mapping[str, Any]) -> bool | None:
    """Return whether the process of `identify` still runs; `None` if it belongs to another machine."""
    if identity.get("hostname") != socket.gethostname():
        return None
    stat = process_stat(int(identity["pid"]))
    return (
        stat is not None
        and stat[0] not in "ZX"
        and int(stat[19]) == identity["pid_start"]
        and identity["boot_id"] == _boot_id()
    )
