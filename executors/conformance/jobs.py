"""Small jobs whose ranks run some lines of Python, and functions that wait for their results."""

import dataclasses
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from executors.base import Job
from executors.conformance.hostile import folder_names
from executors.conformance.subject import Subject, tiny_recipe
from executors.launch import plan_job, start_job
from executors.runs.run import Run
from neva_recipes.run_directory.layout import joined_log

__all__ = [
    "account",
    "all_have_told",
    "assert_nothing_left",
    "hostile_folder",
    "make_job",
    "require_end",
    "require_equal",
    "started",
    "wait_until",
]

_MARK = "EXECUTOR_CONFORMANCE_MARK"

_TOLD_LINES = 5

_PREAMBLE = """
import hashlib, json, os, signal, subprocess, sys, time
from pathlib import Path
rank, folder = int(os.environ["RANK"]), Path(sys.argv[-1])
def wait(name):
    while not (folder / name).exists():
        time.sleep(0.02)
def tell(value):
    (folder / f"told-{rank}.new").write_text(json.dumps(value))
    (folder / f"told-{rank}.new").rename(folder / f"told-{rank}.json")
"""


def hostile_folder(subject: Subject, name: str) -> Path:
    """Return a folder whose path holds every hostile text that a path of the subject can hold."""
    return subject.folder.joinpath(name, *folder_names(subject.refused_in_paths))


def make_job(
    subject: Subject,
    body: str,
    *,
    env: Mapping[str, str] | None = None,
    arguments: tuple[str, ...] = (),
    name: str = "conformance",
    runs_dir: Path | None = None,
) -> Job:
    """Return a job whose ranks run some lines of Python; its run directory lies in a hostile folder."""
    mark = uuid.uuid4().hex
    job = plan_job(
        tiny_recipe(devices=subject.world_size, accelerator="cpu"),
        subject.make(env={_MARK: mark, **(env or {})}),
        name=name,
        runs_dir=runs_dir or hostile_folder(subject, "runs"),
    )
    # The program is an argument, so that a job that sees only its run directory can run it too.
    return dataclasses.replace(job, argv=(subject.python, "-c", _PREAMBLE + body, *arguments))


def started(job: Job) -> Run:
    """Start a job and return its run."""
    return start_job(job, detach=True)


def require_equal(what: str, got: object, expected: object) -> None:
    """Raise `AssertionError` with a description unless two values are equal."""
    assert got == expected, f"{what} is {got!r}: expected {expected!r}"


def require_end(run: Run, subject: Subject, code: int, state: str, what: str = "the job") -> None:
    """Wait for the end of a run; raise `AssertionError` unless exit code and state are as expected."""
    wait_until(lambda: run.status().exit_code is not None, subject, run, f"the end of {what}")
    status = run.status()
    ends = f"{what}: is {status.state} with {status.exit_code}, expected {state} with {code}; {account(run)}"
    assert (status.exit_code, status.state) == (code, state), ends


def account(run: Run) -> str:
    """Return a description of a run for the message of a failed check."""
    log = joined_log(run.path)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return f"{run.status()}; the last lines of {log.name}: {lines[-_TOLD_LINES:]}"


def all_have_told(run: Run, subject: Subject) -> bool:
    """Return whether every rank has written its report."""
    return len(list(run.path.glob("told-*.json"))) == subject.world_size


def wait_until(condition: Callable[[], object], subject: Subject, run: Run, what: str) -> None:
    """Return once a condition holds; raise `AssertionError` if it does not within the patience of the subject."""
    deadline = time.monotonic() + subject.patience
    while not condition():
        assert time.monotonic() < deadline, f"waited {subject.patience:g} s in vain for {what}: {account(run)}"
        time.sleep(0.05)


def assert_nothing_left(run: Run, job: Job, subject: Subject) -> None:
    """Wait until no process of this machine has the job's mark in its environment."""
    needle = f"{_MARK}={job.env[_MARK]}".encode()

    def left() -> list[str]:
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if needle in path.read_bytes():
                    found.append(path.parent.name)
        return found

    deadline = time.monotonic() + subject.patience
    while processes := left():
        assert time.monotonic() < deadline, f"its end has left the processes {', '.join(processes)}: {account(run)}"
        time.sleep(0.05)
