"""Makes NeMo-Run start the ranks of a run: `python -m executors.nemo_run.launcher RUN_DIR`, under the supervisor.

Ends with the exit code of the run: 0, that of the rank whose failure ended it, or 1 if NeMo-Run reports a failure
before the ranks have recorded their ends. failure.json explains the last two. SIGTERM cancels the job; SIGUSR2 is
forwarded to the ranks, which then save and stop. While the job waits in the queue of a cluster, the run is `queued`.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from executors.job_record import load_executor, read_job_record
from executors.nemo_run.rank import NEMO_RUN_FOLDER, RANKS_FOLDER, STOP_FILE
from executors.process.linux import describe_exit
from executors.process.verdict import cause_of, reported_failure
from neva_recipes.config import UserError
from neva_recipes.run_directory.exit_codes import (
    CAUSES,
    EXIT_CANCELLED,
    EXIT_MISTAKE,
    EXIT_STOPPED,
    STOP_SIGNAL,
    exit_code_of,
)
from neva_recipes.run_directory.layout import FAILURE_FILE, launcher_log
from neva_recipes.run_directory.state import now, read_state, write_atomically, write_state
from neva_recipes.secrets import mask, secret_values

_POLL_SECONDS = {"local": 0.5, "docker": 0.5}
_POLL_SECONDS_OF_CLUSTERS = 10.0
_LAST_POLL_SECONDS = 1.0
_WAITING = ("UNSUBMITTED", "SUBMITTED", "PENDING")
_ENDED = ("SUCCEEDED", "FAILED", "CANCELLED", "UNKNOWN")


class _Requests:
    """Remembers the requests that the process got as signals."""

    def __init__(self) -> None:
        self.cancel = False
        self.stop = False

    def listen(self) -> None:
        """Install the signal handlers, in place of those that a library may have installed since."""
        for number in (signal.SIGTERM, signal.SIGINT, STOP_SIGNAL):
            signal.signal(number, self._take)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {STOP_SIGNAL})

    def _take(self, number: int, _: object) -> None:
        if number == STOP_SIGNAL:
            self.stop = True
        else:
            self.cancel = True


def main(arguments: list[str]) -> int:
    """Run the job to its end and return its exit code."""
    run_dir = Path(arguments[0])
    requests = _Requests()
    requests.listen()
    record = read_job_record(run_dir)
    home = _home(run_dir, record["executor"]["options"])
    os.environ["NEMORUN_HOME"] = str(home)  # read when nemo_run is imported
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    shutil.rmtree(run_dir / RANKS_FOLDER, ignore_errors=True)
    (run_dir / RANKS_FOLDER).mkdir()
    try:
        return _run(run_dir, record, home, requests)
    except Exception as error:  # noqa: BLE001 every error of NeMo-Run must reach the user who waits for the run
        traceback.print_exc()
        _explain(run_dir, 0, "crash", f"NeMo-Run could not run the job: {type(error).__name__}: {error}")
        return 1
    finally:
        if home.parent != run_dir:
            shutil.rmtree(home, ignore_errors=True)


def _home(run_dir: Path, options: Mapping[str, str]) -> Path:
    """Return the folder for NeMo-Run's files, which hold every option; in memory if options are secret."""
    if any(text.startswith("env:") for text in options.values()):
        memory = Path("/dev/shm")
        return Path(tempfile.mkdtemp(prefix="nemo-run-", dir=memory if memory.is_dir() else None))
    return run_dir / NEMO_RUN_FOLDER


def _run(run_dir: Path, record: Mapping[str, Any], home: Path, requests: _Requests) -> int:
    try:
        executor: Any = load_executor(record, os.environ)
        nemo_executor = executor.nemo_executor(record["num_nodes"], record["processes_per_node"], run_dir)
    except UserError as error:
        _explain(run_dir, 0, "user", str(error))
        return EXIT_MISTAKE
    import nemo_run

    from executors.nemo_run.task import TASK, TITLE, make_script

    if executor.backend == "skypilot":
        enter_empty_repository(home)
    experiment = nemo_run.Experiment(
        TITLE, executor=nemo_executor, base_dir=str(home), skip_status_at_exit=True, enable_goodbye_message=False
    )
    with experiment:
        experiment.add(make_script(nemo_executor, executor.python, run_dir), name=TASK)
        experiment.run()
        requests.listen()  # torchx has installed its own handlers
        job = _Job(experiment, TASK, run_dir, record["world_size"], executor.backend)
        state = job.wait(requests)
        if requests.cancel or (executor.backend == "slurm" and state != "SUCCEEDED"):  # Slurm may have requeued it
            job.cancel()
        if executor.backend not in _POLL_SECONDS:
            experiment.detach = True  # otherwise NeMo-Run would wait for a job whose end it has not seen
        if requests.cancel:
            return EXIT_CANCELLED
    return _judge(run_dir, record["world_size"], state)


def enter_empty_repository(folder: Path) -> None:
    """Change to an empty git repository: NeMo-Run packages the current one, which the ranks do not need."""
    folder.mkdir(exist_ok=True)
    author = ["-c", "user.name=neva", "-c", "user.email=neva@localhost", "-c", "commit.gpgSign=false"]
    git = ["git", "-C", str(folder), *author]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "nothing"], check=True)
    os.chdir(folder)


class _Job:
    """A job that NeMo-Run has started."""

    def __init__(self, experiment: Any, task: str, run_dir: Path, world_size: int, backend: str) -> None:
        self._experiment = experiment
        self._task = task
        self._run_dir = run_dir
        self._world_size = world_size
        self._backend = backend
        self._seconds = _POLL_SECONDS.get(backend, _POLL_SECONDS_OF_CLUSTERS)
        self._waits = False

    def wait(self, requests: _Requests) -> str:
        """Wait until the job and its ranks have ended or a cancel is requested; return NeMo-Run's state of the job."""
        disagree_since: float | None = None
        asked_at, state = -self._seconds, "UNSUBMITTED"
        while not requests.cancel:
            if requests.stop:
                requests.stop = False
                (self._run_dir / RANKS_FOLDER / STOP_FILE).touch()
            all_told = len(_exits(self._run_dir)) == self._world_size
            seconds = min(self._seconds, _LAST_POLL_SECONDS) if all_told else self._seconds
            if time.monotonic() - asked_at >= seconds:
                state = self._state()
                asked_at = time.monotonic()
            self._show(state)
            has_ended = state in _ENDED
            if has_ended and all_told:
                return state
            # A requeued job waits although its ranks have recorded their ends.
            if has_ended or (all_told and state not in _WAITING):
                disagree_since = disagree_since or time.monotonic()
                # Ranks record their ends even if the job fails, unless they were killed.
                if time.monotonic() - disagree_since > _patience(state, self._seconds):
                    return state
            else:
                disagree_since = None
            time.sleep(0.1)
        return state

    def cancel(self) -> None:
        """Make NeMo-Run stop the job."""
        self._experiment.cancel(self._task)
        # NeMo-Run does not cancel a job that Slurm's accounting does not know yet.
        while self._backend == "slurm" and self._state() not in ("SUCCEEDED", "FAILED", "CANCELLED"):
            time.sleep(_LAST_POLL_SECONDS)
            self._experiment.cancel(self._task)

    def _state(self) -> str:
        return str(self._experiment.status(return_dict=True)[self._task]["status"].name)

    def _show(self, state: str) -> None:
        """Write to state.json that the job waits in the queue of a cluster, until a rank has started."""
        if self._backend in _POLL_SECONDS:
            return
        has_started = any((self._run_dir / RANKS_FOLDER).glob("*.started"))
        waits = not has_started and state in _WAITING
        if waits != self._waits:
            self._waits = waits
            written = read_state(self._run_dir)
            if waits:
                changed = dataclasses.replace(
                    written, state="queued", reason=f"waits for {self._backend}", started=None
                )
            else:
                changed = dataclasses.replace(written, state="running", reason=None, started=now())
            write_state(self._run_dir, changed)


def _patience(state: str, poll_seconds: float) -> float:
    """Return for how many seconds NeMo-Run's state and the records of the ranks may differ before waiting ends.

    While a cluster does not answer, NeMo-Run reports UNKNOWN for a running job.
    """
    if state == "FAILED":
        return 2.0
    return 60 * poll_seconds if state == "UNKNOWN" else 20.0


class _End(NamedTuple):
    """The end of a rank: its exit code (a negative signal number if killed) and the time."""

    rank: int
    code: int
    time: float


def _exits(run_dir: Path) -> dict[int, _End]:
    """Return the recorded ends of the ranks, by rank."""
    found = {}
    for path in (run_dir / RANKS_FOLDER).glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            written = json.loads(path.read_text(encoding="utf-8"))
            found[int(path.stem)] = _End(int(path.stem), written["code"], written["time"])
    return found


def _judge(run_dir: Path, world_size: int, state: str) -> int:
    """Return the exit code of the run, and make sure that failure.json says why it failed."""
    exits = _exits(run_dir)
    failed = sorted((end for end in exits.values() if end.code not in (0, EXIT_STOPPED)), key=lambda end: end.time)
    cause = cause_of(failed)
    if cause is None and any(end.code == EXIT_STOPPED for end in exits.values()):
        return EXIT_STOPPED
    if cause is None:
        if len(exits) == world_size:
            return 0
        told = f"{len(exits)} of {world_size} ranks said how they ended"
        _explain(
            run_dir, 0, "crash", f"NeMo-Run says {state}, and {told}: see {launcher_log(Path())} and {NEMO_RUN_FOLDER}/"
        )
        return 1
    if reported_failure(run_dir, cause.rank if -cause.code in CAUSES else None) is None:
        _explain(run_dir, cause.rank, "crash", describe_exit(cause.code))
    return exit_code_of(cause.code)


def _explain(run_dir: Path, rank: int, kind: str, message: str) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)
    failure = {"rank": rank, "kind": kind, "message": mask(message, secret_values(os.environ))}
    write_atomically(run_dir / FAILURE_FILE, json.dumps(failure) + "\n")


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of NeMo-Run may block the interpreter's shutdown forever.
    os._exit(code)
