"""One rank of a job that NeMo-Run started: `python -m executors._nemo_run_rank RUN_DIR`, once per rank, by torchrun.

Runs the program of the job with the variables of its rank, keeps the rank's log, and writes how it ended to
RUN_DIR/ranks/N.json: neither torchrun nor NeMo-Run keeps the exit codes of ranks. Its own output stays empty, so that
what ranks print, and the secrets in it, gets into no file of NeMo-Run's.
"""

import contextlib
import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from executors._logs import LogWriter
from executors._process import become_subreaper, die_with_parent, kill_children
from executors._rank import EXIT_STOPPED, STOP_SIGNAL, Rank
from executors._state import read_json, write_atomically
from neva_recipes.secrets import secret_values

__all__ = ["NEMO_RUN_FOLDER", "RANKS_FOLDER", "STOP_FILE", "main", "plain_path"]

RANKS_FOLDER = "ranks"
"""Folder of the run directory in which each rank says how it ended."""

NEMO_RUN_FOLDER = "nemo-run"
"""Folder of the run directory for NeMo-Run's files; in paths with `/nemo_run` it puts another path for that."""

STOP_FILE = "stop"
"""In that folder, the request to the ranks to save and stop; a file reaches them on every machine."""

_LOOK_SECONDS = 1.0
_FORWARDED = (signal.SIGTERM, signal.SIGINT, STOP_SIGNAL)


def plain_path(path: Path) -> str:
    """Return a path as an argument of letters, digits and `/._-%`, which no shell and no template changes."""
    return quote(os.fsencode(path)).replace("~", "%7E")


def main(arguments: list[str]) -> int:
    """Run one rank to its end.

    Args:
        arguments: The run directory, as `plain_path` writes it.

    Returns:
        The exit code of the rank, 128 + signal if it was killed; 0 if it was stopped on request, which to torchrun
        would be a reason to kill the others.
    """
    run_dir = Path(os.fsdecode(unquote_to_bytes(arguments[0])))
    job: dict[str, Any] = read_json(run_dir / "job.json")
    number = int(os.environ["RANK"])
    ended_path = run_dir / RANKS_FOLDER / f"{number}.json"
    ended_path.unlink(missing_ok=True)  # a cluster may start a job a second time
    code = _run(run_dir, job, number)
    kill_children()
    ended = {"code": code, "time": time.time()}
    write_atomically(ended_path, json.dumps(ended) + "\n")
    if code == EXIT_STOPPED:
        return 0
    return code if code >= 0 else 128 - code


def _run(run_dir: Path, job: Mapping[str, Any], number: int) -> int:
    """Start the program of the rank, copy its output and pass signals on; return how it ended, as `subprocess` does."""
    die_with_parent(signal.SIGTERM, os.getppid())
    become_subreaper()
    wakeup, wakeup_write = os.pipe()
    for descriptor in (wakeup, wakeup_write):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
    for caught in (signal.SIGCHLD, *_FORWARDED):
        signal.signal(caught, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {STOP_SIGNAL})
    (run_dir / RANKS_FOLDER / f"{number}.started").touch()
    prefix = f"[{number}] ".encode() if job["world_size"] > 1 else b""
    joined = LogWriter(run_dir / "logs" / "joined.log")
    rank = Rank(number, LogWriter(run_dir / "logs" / f"rank-{number}.log"), prefix, secret_values(os.environ))
    rank.spawn(_command(job, run_dir), {**os.environ, **job["env"], "NODE_RANK": os.environ.get("GROUP_RANK", "0")})
    stop_path, is_asked = run_dir / RANKS_FOLDER / STOP_FILE, False
    with selectors.DefaultSelector() as selector:
        selector.register(rank.output, selectors.EVENT_READ)
        selector.register(wakeup, selectors.EVENT_READ)
        while rank.exit_code is None:
            if not is_asked and stop_path.exists():
                is_asked = True
                _forward(rank, bytes([STOP_SIGNAL]))
            for key, _ in selector.select(_LOOK_SECONDS):
                if key.fd == wakeup:
                    _forward(rank, os.read(wakeup, 4096))
                elif not rank.read(joined):
                    selector.unregister(rank.output)
    rank.read(joined)
    rank.finish_log(joined)
    return rank.exit_code


def _command(job: Mapping[str, Any], run_dir: Path) -> list[str]:
    program = [job["executor"]["python"] or job["argv"][0], *job["argv"][1:]]
    return [*program, str(run_dir)]


def _forward(rank: Rank, numbers: bytes) -> None:
    for number in numbers:
        if number == signal.SIGCHLD:
            _reap(rank)
        elif rank.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rank.pid, number)


def _reap(rank: Rank) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            if pid == rank.pid:
                rank.exit_code = os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
