"""The conformance checks of executors."""

import functools
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

from executors.base import Job
from executors.conformance.hostile import HOSTILE, executed_below, folder_names, run_names
from executors.conformance.jobs import (
    all_have_told,
    assert_nothing_left,
    hostile_folder,
    make_job,
    require_end,
    require_equal,
    started,
    wait_until,
)
from executors.conformance.leaks import in_arguments, in_commands, in_files, in_texts
from executors.conformance.subject import Subject
from executors.job_record import executor_class, load_executor, read_job_record
from executors.launch import start_job
from executors.process.surroundings import RANK_VARIABLES
from executors.registry import kind_class
from executors.runs.finding import find_run
from executors.runs.run import Run
from neva_recipes.config import UserError, field_types
from neva_recipes.run_directory.exit_codes import EXIT_CANCELLED
from neva_recipes.run_directory.layout import LAUNCH_FILE, LOGS, STATE_FILE, joined_log, rank_log
from neva_recipes.run_directory.names import LONGEST_NAME

__all__ = ["CHECKS"]

_SECRET = "EXECUTOR_CONFORMANCE_TOKEN"
_INHERITED = "EXECUTOR_CONFORMANCE_PASSWORD"

_OF_LAUNCHERS = (
    *("TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_ERROR_FILE", "PET_NNODES", "GROUP_RANK", "ROLE_RANK"),
    *("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LABELIO", "SUBMITIT_LOCAL_GLOBALRANK", "OMPI_COMM_WORLD_RANK"),
    *("PMI_RANK", "PMIX_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_RANK", "PL_TRAINER_MAX_STEPS", "CROSS_RANK"),
    *("ACCELERATE_USE_FSDP", "HOROVOD_RANK", "NCCL_COMM_ID"),
)
"""Some variables of each launcher in `executors.process.surroundings`."""


def kind_is_registered(subject: Subject) -> None:
    """Its kind leads to its class, so that other commands can load its runs."""
    cls = type(subject.make())
    assert kind_class(cls.kind) is cls, f"{cls.kind!r} names {kind_class(cls.kind)}, not {cls}"


def fields_round_trip(subject: Subject) -> None:
    """Its fields are restored from job.json unchanged; of secrets, job.json holds only the names."""
    executor = subject.make(env={"CONFORMANCE": "a 'b'\nc", _SECRET: _secret()})
    record = json.loads(json.dumps({"name": "run", "executor": executor.record()}))
    assert _secret() not in json.dumps(record), "a secret is in the record"
    require_equal("the class that job.json leads to", executor_class(record), type(executor))
    require_equal("the executor of job.json", load_executor(record, {_SECRET: _secret()}), executor)
    _refusal(lambda: load_executor(record, {}), _SECRET)


def wrong_fields_are_refused(subject: Subject) -> None:
    """A value of the wrong type is refused in one line that names the field."""
    for name in field_types(type(subject.make())):
        _refusal(functools.partial(subject.make, **{name: object()}), f"executor.{name}")
    for variable in RANK_VARIABLES:
        _refusal(functools.partial(subject.make, env={variable: "1"}), variable)


def impossible_layouts_are_refused(subject: Subject) -> None:
    """A layout that it cannot provide is refused in one line, and nothing is written."""
    executor, before = subject.make(), list(subject.folder.iterdir())
    executor.check(make_job(subject, "").layout)
    if subject.refused is not None:
        refused = subject.refused
        _refusal(lambda: executor.check(refused))
    require_equal("what is in the folder after a refusal", list(subject.folder.iterdir()), before)


def script_is_shell(subject: Subject) -> None:
    """Its script is valid POSIX shell, whatever the name, arguments and variables of the job."""
    with _in_hostile_folder(subject):
        job = _hostile_job(subject)
    script = _script_file(job, subject)
    _run("sh", "-n", str(script))
    if shutil.which("shellcheck"):
        # shellcheck mistakes a carriage return inside quotes for the end of a line.
        script.write_bytes(script.read_bytes().replace(b"\r", b""))
        _run("shellcheck", "--shell=sh", "--severity=warning", str(script))
    assert _secret() not in job.script(), "a secret is in the script"


def what_no_job_can_carry_is_refused(subject: Subject) -> None:
    """An impossible name or path is refused in one line, and nothing is written."""
    before = list(subject.folder.iterdir())
    for text in ("nul\0", "a/b", *HOSTILE):
        if text not in folder_names() or not text.isprintable() or text.startswith(("-", ".")):
            _refusal(functools.partial(make_job, subject, "", name=text), "name")
    _refusal(lambda: make_job(subject, "", runs_dir=subject.folder / "nul\0"), "runs_dir")
    _refusal(lambda: make_job(subject, "", env={"NUL": "nul\0"}), "executor.env.NUL")
    for text in subject.refused_in_paths:
        job = make_job(subject, "", runs_dir=subject.folder / text)
        _refusal(functools.partial(start_job, job, detach=True))
    require_equal("what is in the folder after a refusal", list(subject.folder.iterdir()), before)


def ranks_get_what_was_given(subject: Subject) -> None:
    """Every rank gets its variables, arguments and folder unchanged, and none of them is executed on the way."""
    with _in_hostile_folder(subject):
        job = _hostile_job(subject)
        run = started(job)
        require_end(run, subject, 0, "succeeded")
    _assert_given(run, job, subject)


def launchers_are_not_heard(subject: Subject) -> None:
    """Variables that launchers have set for the command reach no rank; variables that users set for tuning do."""
    body = "tell([name for name, value in os.environ.items() if value.startswith('conformance of ')])"
    told = {name: f"conformance of {name}" for name in _OF_LAUNCHERS if name not in os.environ}
    os.environ.update(told)
    try:
        run = started(make_job(subject, body, env={"NCCL_IB_HCA": "conformance of executor.env"}))
        require_end(run, subject, 0, "succeeded")
    finally:
        for name in told:
            del os.environ[name]
    for rank in range(subject.world_size):
        heard = json.loads((run.path / f"told-{rank}.json").read_text())
        require_equal(f"rank {rank}: what it has heard", heard, ["NCCL_IB_HCA"])


def script_starts_the_job(subject: Subject) -> None:
    """The script of a job that was never written writes the same run directory and starts the job."""
    with _in_hostile_folder(subject):
        job = _hostile_job(subject)
    script = _script_file(job, subject)
    _run("sh", str(script), timeout=subject.patience, cwd=subject.folder, env={**os.environ, _SECRET: _secret()})
    run = find_run(str(job.run_dir))
    require_end(run, subject, 0, "succeeded")
    _assert_given(run, job, subject)
    again = load_executor(read_job_record(run.path), {_SECRET: _secret()})
    require_equal("the executor of the job.json that the script writes", again, job.executor)


def secrets_are_nowhere(subject: Subject) -> None:
    """Secrets reach the ranks, but no file, no list of arguments, and no output."""
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
        run = started(make_job(subject, body, env={_SECRET: _secret()}))
        try:
            wait_until(lambda: all_have_told(run, subject), subject, run, "all ranks to start")
            found = [*in_arguments(values), *in_files(values, written()), *in_texts(values, subject.told(run))]
        finally:
            (run.path / "go").touch()
        require_end(run, subject, 0, "succeeded")
    finally:
        del os.environ[_INHERITED]
    found += [*in_files(values, written()), *in_commands(secrets, run)]
    assert not found, f"a secret is in {', in '.join(dict.fromkeys(found))}"
    told = json.loads((run.path / "told-0.json").read_text())
    assert told == hashlib.sha256(_secret().encode()).hexdigest(), "the ranks did not get it"
    printed = rank_log(run.path, 0).read_text(encoding="utf-8")
    assert "it is ***" in printed, f"logs/rank-0.log has no *** in place of the secret: {printed!r}"


def ends_are_told_apart(subject: Subject) -> None:
    """Success, a user error, a crash and a killed rank each have their exit code, state and reason."""
    ends = (
        ("sys.exit(0)", 0, "succeeded"),
        ("sys.exit(2 if rank == 0 else wait('never'))", 2, "failed"),
        ("raise RuntimeError if rank == 0 else SystemExit(wait('never'))", 1, "failed"),
        ("os.kill(os.getpid(), signal.SIGKILL) if rank == 0 else wait('never')", 128 + signal.SIGKILL, "failed"),
    )
    # Together, the names hold every hostile text that a name can hold.
    names = run_names(len(ends), subject.refused_in_paths)
    with _in_hostile_folder(subject):
        jobs = [make_job(subject, body, name=name) for (body, _, _), name in zip(ends, names, strict=True)]
        runs = [started(job) for job in jobs]  # all at once: a job may take long to start
        for (body, code, state), job, run in zip(ends, jobs, runs, strict=True):
            require_end(run, subject, code, state, body)
            told = run.status().reason
            assert (state == "succeeded") == (not told), f"{body}: a run that {state} has the reason {told!r}"
            require_equal(f"the run called {job.name!r}", find_run(job.name, run.path.parent).path, run.path)
            assert_nothing_left(run, job, subject)
    assert not executed_below(subject.folder), "a name was executed"


def cancel_leaves_nothing(subject: Subject) -> None:
    """A running job is reported as alive; cancelling it from any process ends it and its children."""
    child = "import time; time.sleep(600)"
    body = f"subprocess.Popen([sys.executable, '-c', {child!r}])\ntell('up')\nwait('never')"
    jobs = [make_job(subject, body), make_job(subject, f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{body}")]
    runs = [started(job) for job in jobs]
    for job, run, force in zip(jobs, runs, (False, True), strict=True):
        wait_until(lambda: all_have_told(run, subject), subject, run, "all ranks to start")  # noqa: B023
        supervisor = json.loads((run.path / STATE_FILE).read_text())["supervisor"]
        cls = executor_class(read_job_record(run.path))
        require_equal("is_alive of a job that runs", cls.is_alive(supervisor), True)
        require_equal("the state of a job that runs", run.status().state, "running")
        if force:
            Run(run.path).cancel(force=True)
        else:
            code = "import sys; from pathlib import Path; from executors import Run; Run(Path(sys.argv[1])).cancel()"
            _run(sys.executable, "-c", code, str(run.path), timeout=subject.patience)
        require_end(run, subject, EXIT_CANCELLED, "cancelled", "cancelled by force" if force else "cancelled")
        assert_nothing_left(run, job, subject)
        gone = "is_alive to be false of a cancelled job"
        wait_until(lambda: cls.is_alive(supervisor) is not True, subject, run, gone)  # noqa: B023


CHECKS: tuple[Callable[[Subject], None], ...] = (
    kind_is_registered,
    fields_round_trip,
    wrong_fields_are_refused,
    impossible_layouts_are_refused,
    what_no_job_can_carry_is_refused,
    script_is_shell,
    script_starts_the_job,
    ranks_get_what_was_given,
    launchers_are_not_heard,
    secrets_are_nowhere,
    ends_are_told_apart,
    cancel_leaves_nothing,
)
"""Every check, the quick ones first; those after `script_is_shell` start jobs."""


@functools.cache
def _secret() -> str:
    return f"conformance-{uuid.uuid4().hex}"


@contextmanager
def _in_hostile_folder(subject: Subject) -> Iterator[None]:
    """Change to a folder whose path holds every hostile text; an executed text leaves its file below it."""
    folder = hostile_folder(subject, "folder")
    folder.mkdir(parents=True, exist_ok=True)
    with chdir(folder):
        yield


def _hostile_job(subject: Subject) -> Job:
    body = (
        "tell({'argv': sys.argv[1:], 'cwd': os.getcwd(),\n"
        "  'hostile': {name: value for name, value in os.environ.items() if name.startswith('HOSTILE_')},\n"
        f"  'env': {{name: os.environ.get(name) for name in {RANK_VARIABLES!r}}}}})\n"
        "print(f'rank {rank} was here', flush=True)"
    )
    env = {f"HOSTILE_{number}": text for number, text in enumerate(HOSTILE)}
    # The name has the maximum length.
    return make_job(subject, body, env={**env, _SECRET: _secret()}, arguments=HOSTILE, name="ü" * (LONGEST_NAME // 2))


def _script_file(job: Job, subject: Subject) -> Path:
    script = subject.folder / LAUNCH_FILE
    script.write_text(job.script(), encoding="utf-8", errors="surrogateescape")
    return script


def _assert_given(run: Run, job: Job, subject: Subject) -> None:
    """Check what the ranks of a hostile job have reported."""
    for rank in range(subject.world_size):
        told = json.loads((run.path / f"told-{rank}.json").read_text())
        who = f"rank {rank}:"
        for got, given in zip(told["argv"], [*HOSTILE, str(run.path)], strict=False):
            require_equal(f"{who} an argument", got, given)
        require_equal(f"{who} the number of its arguments", len(told["argv"]), len(HOSTILE) + 1)
        for name in (name for name in job.env if name.startswith("HOSTILE_")):
            require_equal(f"{who} the variable {name}", told["hostile"].get(name), job.env[name])
        if subject.in_folder:
            require_equal(f"{who} its working directory", Path(told["cwd"]), job.cwd)
        missing = [name for name in RANK_VARIABLES if told["env"].get(name) is None]
        assert not missing, f"{who} has no {', '.join(missing)}"
        require_equal(f"{who} RANK", told["env"]["RANK"], str(rank))
        require_equal(f"{who} WORLD_SIZE", told["env"]["WORLD_SIZE"], str(subject.world_size))
        for log in (rank_log(run.path, rank), joined_log(run.path)):
            printed = log.read_text(encoding="utf-8")
            assert f"rank {rank} was here" in printed, f"{who} what it printed is not in {LOGS}/{log.name}"
    require_equal("the run directory", run.path, job.run_dir)
    assert not executed_below(subject.folder), "a text was executed"


def _refusal(action: Callable[[], object], words: str = "") -> None:
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
