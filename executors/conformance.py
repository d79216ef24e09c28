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
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executors._finding import find_run
from executors._hostile import HOSTILE, executed_below, folder_names, run_names
from executors._leaks import in_arguments, in_commands, in_files, in_texts
from executors.base import RANK_VARIABLES, Executor
from executors.job import Job, executor_class, load_executor, read_job_record
from executors.launch import plan_job, start_job
from executors.registry import kind_class
from executors.runs import Run
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
from neva_recipes.plan.checks import LONGEST_NAME

__all__ = ["CHECKS", "HOSTILE", "Subject", "tiny_recipe"]

_MARK = "EXECUTOR_CONFORMANCE_MARK"
_SECRET = "EXECUTOR_CONFORMANCE_TOKEN"
_INHERITED = "EXECUTOR_CONFORMANCE_PASSWORD"

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
        refused_in_paths: Those of `HOSTILE` that the path of a run directory cannot hold.
        written: Returns files and folders elsewhere that it, or what runs its jobs, has written.
        told: Returns what the place tells of a run that runs, by how it was asked.
    """

    make: Callable[..., Executor]
    folder: Path
    refused: Layout | None = None
    python: str = sys.executable
    world_size: int = 2
    patience: float = 120.0
    in_folder: bool = True
    refused_in_paths: tuple[str, ...] = ()
    written: Callable[[], Iterable[Path]] = tuple
    told: Callable[[Run], Mapping[str, str]] = lambda _: {}


def tiny_recipe(name: str = "tiny", **trainer: Any) -> Any:
    """Return a recipe that any plan accepts and that names files that are there, for jobs that do not train.

    Args:
        name: The recipe's.
        **trainer: Fields of its `trainer`; `devices`, per node, and `num_nodes` are the layout.
    """
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
        name=name,
        model=config(ModelConfig, language=language),
        data=config(
            TextDataConfig, data_path=__file__, tokenizer="owner/name", sequence_length=16, global_batch_size=24
        ),
        parallel=config(ParallelConfig),
        precision=config(PrecisionConfig),
        optim=config(OptimConfig),
        trainer=config(TrainerConfig, **{"max_steps": 1, "devices": 1, **trainer}),
        checkpoint=config(CheckpointConfig),
        logging=config(LoggingConfig),
    )


def kind_is_registered(subject: Subject) -> None:
    """Its kind leads to its class, so that a run of it can be found again."""
    cls = type(subject.make())
    assert kind_class(cls.kind) is cls, f"{cls.kind!r} names {kind_class(cls.kind)}, not {cls}"


def fields_round_trip(subject: Subject) -> None:
    """Its fields come back from job.json as they were; of secrets their names alone are there."""
    executor = subject.make(env={"CONFORMANCE": "a 'b'\nc", _SECRET: _secret()})
    record = json.loads(json.dumps({"name": "run", "executor": executor.record()}))
    assert _secret() not in json.dumps(record), "a secret is in the record"
    _require_equal("the class that job.json leads to", executor_class(record), type(executor))
    _require_equal("the executor of job.json", load_executor(record, {_SECRET: _secret()}), executor)
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
    _require_equal("what is in the folder after a refusal", list(subject.folder.iterdir()), before)


def script_is_shell(subject: Subject) -> None:
    """What it prints as its script is POSIX shell, whatever the job is called and given."""
    with _in_hostile_folder(subject):
        job = _hostile_job(subject)
    script = _script_file(job, subject)
    _run("sh", "-n", str(script))
    if shutil.which("shellcheck"):
        # It takes a carriage return inside quotes for the end of a line.
        script.write_bytes(script.read_bytes().replace(b"\r", b""))
        _run("shellcheck", "--shell=sh", "--severity=warning", str(script))
    assert _secret() not in job.script(), "a secret is in the script"


def what_no_job_can_carry_is_refused(subject: Subject) -> None:
    """A name or a path that is no name of a folder there is refused in one line, and nothing is written."""
    before = list(subject.folder.iterdir())
    for text in ("nul\0", "a/b", *HOSTILE):
        if text not in folder_names() or not text.isprintable() or text.startswith(("-", ".")):
            _refusal(functools.partial(_job, subject, "", name=text), "name")
    _refusal(lambda: _job(subject, "", runs_dir=subject.folder / "nul\0"), "runs_dir")
    _refusal(lambda: _job(subject, "", env={"NUL": "nul\0"}), "executor.env.NUL")
    for text in subject.refused_in_paths:
        job = _job(subject, "", runs_dir=subject.folder / text)
        _refusal(functools.partial(start_job, job, detach=True))
    _require_equal("what is in the folder after a refusal", list(subject.folder.iterdir()), before)


def ranks_get_what_was_given(subject: Subject) -> None:
    """Every rank gets its variables, arguments and folder unchanged, and none of it is executed on the way."""
    with _in_hostile_folder(subject):
        job = _hostile_job(subject)
        run = _started(job)
        _require_end(run, subject, 0, "succeeded")
    _assert_given(run, job, subject)


def script_starts_the_job(subject: Subject) -> None:
    """The script of a job that was never written writes the same run directory and starts the job."""
    with _in_hostile_folder(subject):
        job = _hostile_job(subject)
    script = _script_file(job, subject)
    _run("sh", str(script), timeout=subject.patience, cwd=subject.folder, env={**os.environ, _SECRET: _secret()})
    run = find_run(str(job.run_dir))
    _require_end(run, subject, 0, "succeeded")
    _assert_given(run, job, subject)
    again = load_executor(read_job_record(run.path), {_SECRET: _secret()})
    _require_equal("the executor of the job.json that the script writes", again, job.executor)


def secrets_are_nowhere(subject: Subject) -> None:
    """Secrets reach the ranks, and stand in no file, no list of arguments, and nothing that anything prints."""
    body = f"""
for name in ({_SECRET!r}, {_INHERITED!r}):
    print("it is", os.environ.get(name), flush=True)
tell(hashlib.sha256(os.environ[{_SECRET!r}].encode()).hexdigest())
wait("go")
"""
    secrets = {_SECRET: _secret(), _INHERITED: _secret()[::-1]}
    values = list(secrets.values())

    def written() -> list[Path]:
        return [subject.folder, *subject.written()]

    os.environ[_INHERITED] = secrets[_INHERITED]
    try:
        run = _started(_job(subject, body, env={_SECRET: _secret()}))
        try:
            _wait(lambda: _all_have_told(run, subject), subject, run, "all ranks to start")
            found = [*in_arguments(values), *in_files(values, written()), *in_texts(values, subject.told(run))]
        finally:
            (run.path / "go").touch()
        _require_end(run, subject, 0, "succeeded")
    finally:
        del os.environ[_INHERITED]
    found += [*in_files(values, written()), *in_commands(secrets, run)]
    assert not found, f"a secret is in {', in '.join(dict.fromkeys(found))}"
    told = json.loads((run.path / "told-0.json").read_text())
    assert told == hashlib.sha256(_secret().encode()).hexdigest(), "the ranks did not get it"
    printed = (run.path / "logs" / "rank-0.log").read_text(encoding="utf-8")
    assert "it is ***" in printed, f"logs/rank-0.log has no *** in place of the secret: {printed!r}"


def ends_are_told_apart(subject: Subject) -> None:
    """Success, a user's mistake, a crash and a killed rank have their own exit code, state and reason."""
    ends = (
        ("sys.exit(0)", 0, "succeeded"),
        ("sys.exit(2 if rank == 0 else wait('never'))", 2, "failed"),
        ("raise RuntimeError if rank == 0 else SystemExit(wait('never'))", 1, "failed"),
        ("os.kill(os.getpid(), signal.SIGKILL) if rank == 0 else wait('never')", 128 + signal.SIGKILL, "failed"),
    )
    # Between them they have names of every text that a name can hold.
    names = run_names(len(ends), subject.refused_in_paths)
    with _in_hostile_folder(subject):
        jobs = [_job(subject, body, name=name) for (body, _, _), name in zip(ends, names, strict=True)]
        runs = [_started(job) for job in jobs]  # all at once: a job may take long to start
        for (body, code, state), job, run in zip(ends, jobs, runs, strict=True):
            _require_end(run, subject, code, state, body)
            told = run.status().reason
            assert (state == "succeeded") == (not told), f"{body}: a run that {state} has the reason {told!r}"
            _require_equal(f"the run called {job.name!r}", find_run(job.name, run.path.parent).path, run.path)
            _assert_nothing_left(run, job, subject)
    assert not executed_below(subject.folder), "a name was executed"


def cancel_leaves_nothing(subject: Subject) -> None:
    """A running job is known to be alive, and is gone with its children when it is cancelled, from any process."""
    child = "import time; time.sleep(600)"
    body = f"subprocess.Popen([sys.executable, '-c', {child!r}])\ntell('up')\nwait('never')"
    jobs = [_job(subject, body), _job(subject, f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{body}")]
    runs = [_started(job) for job in jobs]
    for job, run, force in zip(jobs, runs, (False, True), strict=True):
        _wait(lambda: _all_have_told(run, subject), subject, run, "all ranks to start")  # noqa: B023
        supervisor = json.loads((run.path / "state.json").read_text())["supervisor"]
        cls = executor_class(read_job_record(run.path))
        _require_equal("is_alive of a job that runs", cls.is_alive(supervisor), True)
        _require_equal("the state of a job that runs", run.status().state, "running")
        if force:
            Run(run.path).cancel(force=True)
        else:
            code = "import sys; from pathlib import Path; from executors import Run; Run(Path(sys.argv[1])).cancel()"
            _run(sys.executable, "-c", code, str(run.path), timeout=subject.patience)
        _require_end(run, subject, 130, "cancelled", "cancelled by force" if force else "cancelled")
        _assert_nothing_left(run, job, subject)
        gone = "is_alive to be false of a cancelled job"
        _wait(lambda: cls.is_alive(supervisor) is not True, subject, run, gone)  # noqa: B023


CHECKS: tuple[Callable[[Subject], None], ...] = (
    kind_is_registered,
    fields_round_trip,
    wrong_fields_are_refused,
    impossible_layouts_are_refused,
    what_no_job_can_carry_is_refused,
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


@contextmanager
def _in_hostile_folder(subject: Subject) -> Iterator[None]:
    """Work in a folder below which a text that is executed leaves its file, and whose path holds every text."""
    folder = _hostile_folder(subject, "folder")
    folder.mkdir(parents=True, exist_ok=True)
    with chdir(folder):
        yield


def _hostile_folder(subject: Subject, name: str) -> Path:
    return subject.folder.joinpath(name, *folder_names(subject.refused_in_paths))


def _hostile_job(subject: Subject) -> Job:
    body = (
        "tell({'argv': sys.argv[1:], 'cwd': os.getcwd(),\n"
        "  'hostile': {name: value for name, value in os.environ.items() if name.startswith('HOSTILE_')},\n"
        f"  'env': {{name: os.environ.get(name) for name in {RANK_VARIABLES!r}}}}})\n"
        "print(f'rank {rank} was here', flush=True)"
    )
    env = {f"HOSTILE_{number}": text for number, text in enumerate(HOSTILE)}
    # As long as a name may be.
    return _job(subject, body, env={**env, _SECRET: _secret()}, arguments=HOSTILE, name="ü" * (LONGEST_NAME // 2))


def _script_file(job: Job, subject: Subject) -> Path:
    script = subject.folder / "launch.sh"
    script.write_text(job.script(), encoding="utf-8", errors="surrogateescape")
    return script


def _assert_given(run: Run, job: Job, subject: Subject) -> None:
    """Look at what the ranks of a hostile job have told."""
    for rank in range(subject.world_size):
        told = json.loads((run.path / f"told-{rank}.json").read_text())
        who = f"rank {rank}:"
        for got, given in zip(told["argv"], [*HOSTILE, str(run.path)], strict=False):
            _require_equal(f"{who} an argument", got, given)
        _require_equal(f"{who} the number of its arguments", len(told["argv"]), len(HOSTILE) + 1)
        for name in (name for name in job.env if name.startswith("HOSTILE_")):
            _require_equal(f"{who} the variable {name}", told["hostile"].get(name), job.env[name])
        if subject.in_folder:
            _require_equal(f"{who} its working directory", Path(told["cwd"]), job.cwd)
        missing = [name for name in RANK_VARIABLES if told["env"].get(name) is None]
        assert not missing, f"{who} has no {', '.join(missing)}"
        _require_equal(f"{who} RANK", told["env"]["RANK"], str(rank))
        _require_equal(f"{who} WORLD_SIZE", told["env"]["WORLD_SIZE"], str(subject.world_size))
        for log in (f"rank-{rank}.log", "joined.log"):
            printed = (run.path / "logs" / log).read_text(encoding="utf-8")
            assert f"rank {rank} was here" in printed, f"{who} what it printed is not in logs/{log}"
    _require_equal("the run directory", run.path, job.run_dir)
    assert not executed_below(subject.folder), "a text was executed"


def _job(
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
        runs_dir=runs_dir or _hostile_folder(subject, "runs"),
    )
    # The program is an argument, so that a place which sees the run directory alone can run it too.
    return dataclasses.replace(job, argv=(subject.python, "-c", _PREAMBLE + body, *arguments))


def _started(job: Job) -> Run:
    return start_job(job, detach=True)


def _require_equal(what: str, got: object, expected: object) -> None:
    assert got == expected, f"{what} is {got!r}: expected {expected!r}"


def _require_end(run: Run, subject: Subject, code: int, state: str, what: str = "the job") -> None:
    _wait(lambda: run.status().exit_code is not None, subject, run, f"the end of {what}")
    status = run.status()
    ends = f"{what}: is {status.state} with {status.exit_code}, expected {state} with {code}; {_account(run)}"
    assert (status.exit_code, status.state) == (code, state), ends


def _account(run: Run) -> str:
    """Return what is known of a run that has not done what it should."""
    log = run.path / "logs" / "joined.log"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return f"{run.status()}; the last lines of {log.name}: {lines[-_TOLD_LINES:]}"


def _all_have_told(run: Run, subject: Subject) -> bool:
    return len(list(run.path.glob("told-*.json"))) == subject.world_size


def _wait(condition: Callable[[], Any], subject: Subject, run: Run, what: str) -> None:
    deadline = time.monotonic() + subject.patience
    while not condition():
        assert time.monotonic() < deadline, f"waited {subject.patience:g} s in vain for {what}: {_account(run)}"
        time.sleep(0.05)


def _refusal(action: Callable[[], Any], words: str = "") -> None:
    try:
        action()
    except UserError as error:
        assert words in str(error) and "\n" not in str(error), f"not one line with {words}: {error}"
    else:
        raise AssertionError(f"was not refused: {words}")


def _run(*command: str, timeout: float = 60.0, **options: Any) -> None:
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout, stdin=subprocess.DEVNULL, **options)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"has not ended within {timeout:g} s: {shlex.join(command)}") from None
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, f"{command[0]}: exit code {done.returncode}: {said}"


def _assert_nothing_left(run: Run, job: Job, subject: Subject) -> None:
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
        assert time.monotonic() < deadline, f"its end has left the processes {', '.join(processes)}: {_account(run)}"
        time.sleep(0.05)
