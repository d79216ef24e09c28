"""What every executor must do, as checks that can be run on a real one.

An executor's tests describe it by a `Subject` and call each of `CHECKS`, which raise `AssertionError`:

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_conformance(check, tmp_path):
        check(Subject(make=MyClusterExecutor, folder=tmp_path))
"""

import dataclasses
import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executors.base import RANK_VARIABLES, Executor
from executors.job import Job, executor_class, load_executor, read_job_record
from executors.launch import plan_job, start_job
from executors.registry import kind_class
from executors.runs import Run, find_run
from neva_recipes.config import (
    CheckpointConfig,
    LanguageConfig,
    LoggingConfig,
    ModelConfig,
    OptimConfig,
    ParallelConfig,
    PrecisionConfig,
    Recipe,
    TextDataConfig,
    TrainerConfig,
    UserError,
    config,
    field_types,
)
from neva_recipes.plan import Layout

__all__ = ["CHECKS", "HOSTILE", "Subject"]

HOSTILE = (
    "two  words",
    'it\'s "quoted"',
    "$(touch {marker})",
    "`touch {marker}`",
    "; touch {marker};",
    "&& touch {marker} || true",
    "> {marker}",
    "${{HOME}} $HOME ~ %j %s %%",
    "a\\nb \\\\ \\",
    "*.py [a] {{a,b}} ?",
    "line\nbreak\n#SBATCH --bogus",
    "ünïcödé 漢字 🙂",
    "-rf --help",
    "#comment !history",
    "a=b,c:d",
    "",
)
"""Texts that a shell, a batch system or a format string may take for something else; `{marker}` is a file to make."""

_MARK = "EXECUTOR_CONFORMANCE_MARK"
_SECRET = "EXECUTOR_CONFORMANCE_TOKEN"

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


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An executor to be checked, and what it needs for a small job.

    Attributes:
        make: Returns the executor, with the given fields (`env`) set.
        folder: An empty folder that jobs can see and write into, by the same path.
        refused: A layout that it cannot give a job; none if it takes every one.
        python: Python of the ranks, 3.9 or newer.
        world_size: Processes of a job, 2 or more; one where there is no place for two.
        patience: Seconds that a job may take to start or to end.
        in_folder: Whether the ranks start in the folder of the command, as they do where that is there.
    """

    make: Callable[..., Executor]
    folder: Path
    refused: Layout | None = None
    python: str = sys.executable
    world_size: int = 2
    patience: float = 60.0
    in_folder: bool = True


def kind_is_registered(subject: Subject) -> None:
    """Its kind leads to its class, so that a run of it can be found again."""
    cls = type(subject.make())
    assert kind_class(cls.kind) is cls, f"{cls.kind!r} names {kind_class(cls.kind)}, not {cls}"


def fields_round_trip(subject: Subject) -> None:
    """Its fields come back from job.json as they were; of secrets their names alone are there."""
    executor = subject.make(env={"CONFORMANCE": "a 'b'\nc", _SECRET: _secret()})
    record = json.loads(json.dumps({"name": "run", "executor": executor.record()}))
    assert _secret() not in json.dumps(record), "a secret is in the record"
    assert executor_class(record) is type(executor)
    assert load_executor(record, {_SECRET: _secret()}) == executor
    _refusal(lambda: load_executor(record, {}), _SECRET)


def wrong_fields_are_refused(subject: Subject) -> None:
    """A value of the wrong type is refused in one line that names the field."""
    for name in field_types(type(subject.make())):
        _refusal(functools.partial(subject.make, **{name: object()}), f"executor.{name}")
    for variable in RANK_VARIABLES:
        _refusal(functools.partial(subject.make, env={variable: "1"}), variable)


def impossible_layouts_are_refused(subject: Subject) -> None:
    """What it cannot give is refused in one line, and nothing is written."""
    executor, before = subject.make(), list(subject.folder.iterdir())
    executor.check(_job(subject, "").layout)
    if subject.refused is not None:
        refused = subject.refused
        _refusal(lambda: executor.check(refused))
    assert list(subject.folder.iterdir()) == before


def script_is_shell(subject: Subject) -> None:
    """What it prints as its script is POSIX shell, whatever the job is called and given."""
    job = _hostile_job(subject)
    script = subject.folder / "launch.sh"
    script.write_text(job.script(), encoding="utf-8", errors="surrogateescape")
    _run("sh", "-n", str(script))
    if shutil.which("shellcheck"):
        _run("shellcheck", "--shell=sh", "--severity=warning", str(script))
    assert _secret() not in job.script()


def ranks_get_what_was_given(subject: Subject) -> None:
    """Every rank gets its variables, arguments and folder unchanged, and none of it is executed on the way."""
    job = _hostile_job(subject)
    run = _started(job)
    assert _ended(run, subject) == (0, "succeeded")
    for rank in range(subject.world_size):
        told = json.loads((run.path / f"told-{rank}.json").read_text())
        assert told["argv"] == [*_hostile(subject), str(run.path)]
        assert told["hostile"] == {name: value for name, value in job.env.items() if name.startswith("HOSTILE_")}
        assert Path(told["cwd"]) == job.cwd or not subject.in_folder
        assert [told["env"].get(name) is None for name in RANK_VARIABLES] == [False] * len(RANK_VARIABLES), told["env"]
        assert (int(told["env"]["RANK"]), int(told["env"]["WORLD_SIZE"])) == (rank, subject.world_size)
        assert f"rank {rank} was here" in (run.path / "logs" / f"rank-{rank}.log").read_text(encoding="utf-8")
        assert f"rank {rank} was here" in (run.path / "logs" / "joined.log").read_text(encoding="utf-8")
    assert not (subject.folder / "marker").exists(), "a text was executed"


def secrets_are_nowhere(subject: Subject) -> None:
    """A secret of `env` reaches the ranks, and stands in no file, no list of arguments and no log."""
    job = _job(
        subject,
        f"print(os.environ[{_SECRET!r}], flush=True)\n"
        f"tell(hashlib.sha256(os.environ[{_SECRET!r}].encode()).hexdigest())\nwait('go')",
        env={_SECRET: _secret()},
    )
    run = _started(job)
    try:
        _wait(lambda: list(run.path.glob("told-*.json")), subject)
        listed = [command for command in _command_lines() if _secret() in command]
        assert not listed, f"in the arguments of a process: {listed}"
    finally:
        (run.path / "go").touch()
    assert _ended(run, subject) == (0, "succeeded")
    told = json.loads((run.path / "told-0.json").read_text())
    assert told == hashlib.sha256(_secret().encode()).hexdigest(), "the ranks did not get it"
    for path in subject.folder.rglob("*"):
        if path.is_file():
            assert _secret().encode() not in path.read_bytes(), f"in {path}"


def ends_are_told_apart(subject: Subject) -> None:
    """Success, a user's mistake, a crash and a killed rank have their own exit code, state and reason."""
    for body, code, state in (
        ("sys.exit(0)", 0, "succeeded"),
        ("sys.exit(2 if rank == 0 else wait('never'))", 2, "failed"),
        ("raise RuntimeError if rank == 0 else SystemExit(wait('never'))", 1, "failed"),
        ("os.kill(os.getpid(), signal.SIGKILL) if rank == 0 else wait('never')", 128 + signal.SIGKILL, "failed"),
    ):
        job = _job(subject, body)
        run = _started(job)
        assert _ended(run, subject) == (code, state), f"{body}: {run.status()}"
        assert (state == "succeeded") == (not run.status().reason), run.status()
        _assert_nothing_left(job, subject)


def cancel_leaves_nothing(subject: Subject) -> None:
    """A running job is known to be alive, and is gone with its children when it is cancelled, from any process."""
    for force in (False, True):
        deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if force else ""
        child = "import time; time.sleep(600)"
        body = f"{deaf}subprocess.Popen([sys.executable, '-c', {child!r}])\ntell('up')\nwait('never')"
        job = _job(subject, body)
        run = _started(job)
        _wait(lambda: len(list(run.path.glob("told-*.json"))) == subject.world_size, subject)  # noqa: B023
        supervisor = json.loads((run.path / "state.json").read_text())["supervisor"]
        cls = executor_class(read_job_record(run.path))
        assert cls.is_alive(supervisor) is True
        assert run.status().state == "running"
        if force:
            Run(run.path).cancel(force=True)
        else:
            code = "import sys; from pathlib import Path; from executors import Run; Run(Path(sys.argv[1])).cancel()"
            _run(sys.executable, "-c", code, str(run.path))
        assert _ended(run, subject) == (130, "cancelled"), run.status()
        _assert_nothing_left(job, subject)
        _wait(lambda: cls.is_alive(supervisor) is not True, subject)  # noqa: B023


def script_starts_the_job(subject: Subject) -> None:
    """The script of a job that was never written writes the same run directory and starts the job."""
    job = _job(subject, "tell(sys.argv[1:-1])", arguments=("it's", "$(id)"))
    script = subject.folder / "launch.sh"
    script.write_text(job.script())
    _run("sh", str(script), timeout=subject.patience)
    run = find_run(str(job.run_dir))
    assert _ended(run, subject) == (0, "succeeded")
    assert json.loads((run.path / "told-0.json").read_text()) == ["it's", "$(id)"]
    assert load_executor(read_job_record(run.path), os.environ) == job.executor


CHECKS: tuple[Callable[[Subject], None], ...] = (
    kind_is_registered,
    fields_round_trip,
    wrong_fields_are_refused,
    impossible_layouts_are_refused,
    script_is_shell,
    script_starts_the_job,
    ranks_get_what_was_given,
    secrets_are_nowhere,
    ends_are_told_apart,
    cancel_leaves_nothing,
)
"""Every check, the quick ones first; those behind `script_is_shell` start jobs."""


@functools.cache
def _secret() -> str:
    return f"conformance-{uuid.uuid4().hex}"


def _hostile(subject: Subject) -> list[str]:
    return [text.format(marker=subject.folder / "marker") for text in HOSTILE]


def _hostile_job(subject: Subject) -> Job:
    folder = subject.folder / 'it\'s a $(folder); "ü"'
    folder.mkdir(exist_ok=True)
    texts = _hostile(subject)
    body = (
        "tell({'argv': sys.argv[1:], 'cwd': os.getcwd(),\n"
        "  'hostile': {name: value for name, value in os.environ.items() if name.startswith('HOSTILE_')},\n"
        f"  'env': {{name: os.environ.get(name) for name in {RANK_VARIABLES!r}}}}})\n"
        "print(f'rank {rank} was here', flush=True)"
    )
    env = {f"HOSTILE_{number}": text for number, text in enumerate(texts)}
    job = _job(subject, body, env={**env, _SECRET: _secret()}, arguments=texts, name="it's $(touch x); ü")
    return dataclasses.replace(job, cwd=folder)


def _job(
    subject: Subject,
    body: str,
    *,
    env: Mapping[str, str] | None = None,
    arguments: tuple[str, ...] | list[str] = (),
    name: str = "conformance",
) -> Job:
    """Return a job whose ranks run some lines of Python."""
    mark = uuid.uuid4().hex
    job = plan_job(
        _recipe(subject.world_size),
        subject.make(env={_MARK: mark, **(env or {})}),
        name=name,
        runs_dir=subject.folder / "runs",
    )
    # The program is an argument, so that a place which sees the run directory alone can run it too.
    return dataclasses.replace(job, argv=(subject.python, "-c", _PREAMBLE + body, *arguments))


def _recipe(world_size: int) -> Any:
    language = config(
        LanguageConfig,
        num_layers=1,
        hidden_size=8,
        ffn_hidden_size=8,
        num_attention_heads=1,
        num_query_groups=1,
        vocab_size=16,
        max_position_embeddings=16,
    )
    return config(
        Recipe,
        name="conformance",
        model=config(ModelConfig, language=language),
        data=config(
            TextDataConfig, data_path=__file__, tokenizer="owner/name", sequence_length=16, global_batch_size=8
        ),
        parallel=config(ParallelConfig),
        precision=config(PrecisionConfig),
        optim=config(OptimConfig),
        trainer=config(TrainerConfig, max_steps=1, devices=world_size, accelerator="cpu"),
        checkpoint=config(CheckpointConfig),
        logging=config(LoggingConfig),
    )


def _started(job: Job) -> Run:
    return start_job(job, detach=True)


def _ended(run: Run, subject: Subject) -> tuple[int | None, str]:
    _wait(lambda: run.status().exit_code is not None, subject, run)
    status = run.status()
    return status.exit_code, status.state


def _wait(condition: Callable[[], Any], subject: Subject, run: Run | None = None) -> None:
    deadline = time.monotonic() + subject.patience
    while not condition():
        assert time.monotonic() < deadline, f"waited {subject.patience:g} s in vain{f': {run.status()}' if run else ''}"
        time.sleep(0.05)


def _refusal(action: Callable[[], Any], words: str = "") -> None:
    try:
        action()
    except UserError as error:
        assert words in str(error) and "\n" not in str(error), f"not one line with {words}: {error}"
    else:
        raise AssertionError(f"was not refused: {words}")


def _run(*command: str, timeout: float = 60.0) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{command[0]}: exit code {done.returncode}: {done.stdout}{done.stderr}"


def _command_lines() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")


def _assert_nothing_left(job: Job, subject: Subject) -> None:
    """Wait until no process of this machine has the job's mark in its environment."""
    needle = f"{_MARK}={job.env[_MARK]}".encode()

    def left() -> list[str]:
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if needle in path.read_bytes():
                    found.append(path.parent.name)
        return found

    _wait(lambda: not left(), subject)
