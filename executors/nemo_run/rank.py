"""One rank of a job that NeMo-Run started: `python -m executors.nemo_run.rank RUN_DIR`, once per rank, by torchrun.

Runs the program of the job with the variables of its rank, writes the rank's log, and records its end in
RUN_DIR/ranks/N.json, because neither torchrun nor NeMo-Run keeps the exit codes of ranks. Prints nothing itself, so
that no file of NeMo-Run holds the output of ranks and the secrets in it.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from executors.process.linux import become_subreaper, die_with_parent
from executors.process.logs import LogWriter
from executors.process.loop import RankLoop
from executors.process.rank import Rank
from executors.process.surroundings import NEMO_RUN_LAUNCHER, rank_environment
from neva_recipes.run_directory.exit_codes import EXIT_STOPPED, STOP_SIGNAL, exit_code_of
from neva_recipes.run_directory.layout import JOB_FILE, joined_log, rank_log
from neva_recipes.run_directory.state import read_json, write_atomically
from neva_recipes.secrets import secret_values

__all__ = ["NEMO_RUN_FOLDER", "RANKS_FOLDER", "STOP_FILE", "main", "plain_path"]

RANKS_FOLDER = "ranks"
"""Folder of the run directory in which each rank records its end."""

NEMO_RUN_FOLDER = "nemo-run"
"""Folder of the run directory for NeMo-Run's files; not `nemo_run`, because NeMo-Run replaces `/nemo_run` in paths."""

STOP_FILE = "stop"
"""File in `RANKS_FOLDER` that asks the ranks to save and stop; a file reaches the ranks on all machines."""

_LOOK_SECONDS = 1.0
_FORWARDED = (signal.SIGTERM, signal.SIGINT, STOP_SIGNAL)


def plain_path(path: Path) -> str:
    """Return a path encoded with letters, digits and `/._-%` only, which no shell and no template changes."""
    return quote(os.fsencode(path)).replace("~", "%7E")


def main(arguments: list[str]) -> int:
    """Run one rank to its end.

    Args:
        arguments: The run directory, as `plain_path` writes it.

    Returns:
        The exit code of the rank as in a shell; 0 if it was stopped on request, because torchrun would otherwise kill
        the other ranks.
    """
    run_dir = Path(os.fsdecode(unquote_to_bytes(arguments[0])))
    job: dict[str, Any] = read_json(run_dir / JOB_FILE)
    number = int(os.environ["RANK"])
    ended_path = run_dir / RANKS_FOLDER / f"{number}.json"
    ended_path.unlink(missing_ok=True)  # a cluster may start a job a second time
    code = _run(run_dir, job, number)
    ended = {"code": code, "time": time.time()}
    write_atomically(ended_path, json.dumps(ended) + "\n")
    if code == EXIT_STOPPED:
        return 0
    return exit_code_of(code)


def _run(run_dir: Path, job: Mapping[str, Any], number: int) -> int:
    """Run the program of the rank, copy its output and forward signals; return its exit code as `subprocess` does."""
    die_with_parent(signal.SIGTERM, os.getppid())
    become_subreaper()
    prefix = f"[{number}] ".encode() if job["world_size"] > 1 else b""
    rank = Rank(number, LogWriter(rank_log(run_dir, number)), prefix, secret_values(os.environ))

    def forward(numbers: bytes) -> None:
        for each in numbers:
            if each in _FORWARDED:
                rank.send(each)

    loop = RankLoop(LogWriter(joined_log(run_dir)), _FORWARDED, forward)
    (run_dir / RANKS_FOLDER / f"{number}.started").touch()
    own = job["env"] | {"NODE_RANK": os.environ.get("GROUP_RANK", "0")}
    rank.spawn(_command(job, run_dir), rank_environment(os.environ, own, launcher=NEMO_RUN_LAUNCHER, chosen=job["env"]))
    loop.add(rank)
    stop_path, is_asked = run_dir / RANKS_FOLDER / STOP_FILE, False
    while loop.goes_on:
        if not is_asked and stop_path.exists():
            is_asked = True
            rank.send(STOP_SIGNAL)
        loop.step(_LOOK_SECONDS)
    loop.finish()
    assert rank.exit_code is not None  # the rank has ended
    return rank.exit_code


def _command(job: Mapping[str, Any], run_dir: Path) -> list[str]:
    program = [job["executor"]["python"] or job["argv"][0], *job["argv"][1:]]
    return [*program, str(run_dir)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
