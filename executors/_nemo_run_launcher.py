"""Has NeMo-Run start the ranks of a run: `python -m executors._nemo_run_launcher RUN_DIR`, under the supervisor.

Ends with the exit code of the run: 0, that of the rank whose failure ended it, or 1 where NeMo-Run says that the job
failed before its ranks said how they ended. The last two are explained in failure.json. SIGTERM cancels the job;
SIGUSR2 is passed on to the ranks, which then save and stop. While a cluster lets the job wait, the run is `queued`.
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
from typing import Any

from executors._failure import CAUSES, read_failure
from executors._nemo_run_rank import NEMO_RUN_FOLDER, RANKS_FOLDER, STOP_FILE
from executors._process import describe_exit
from executors._rank import EXIT_STOPPED, STOP_SIGNAL
from executors._state import now, read_state, write_atomically, write_state
from executors.job import load_executor, read_job_record
from neva_recipes.config import UserError
from neva_recipes.secrets import mask, secret_values

_CANCELLED_EXIT_CODE = 130
_POLL_SECONDS = {"local": 0.5, "docker": 0.5}
_POLL_SECONDS_OF_CLUSTERS = 10.0
_LAST_POLL_SECONDS = 1.0
_WAITING = ("UNSUBMITTED", "SUBMITTED", "PENDING")
_ENDED = ("SUCCEEDED", "FAILED", "CANCELLED", "UNKNOWN")


class _Requests:
    """Remembers what the process was asked for by signals."""

    def __init__(self) -> None:
        self.cancel = False
        self.stop = False

    def listen(self) -> None:
        """Take the signals, also from whoever has taken them in between."""
        for number in (signal.SIGTERM, signal.SIGINT, STOP_SIGNAL):
            signal.signal(number, self._take)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {STOP_SIGNAL})

    def _take(self, number: int, _: Any) -> None:
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
    os.environ["NEMORUN_HOME"] = str(home)  # read when it is imported
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    shutil.rmtree(run_dir / RANKS_FOLDER, ignore_errors=True)
    (run_dir / RANKS_FOLDER).mkdir()
    try:
        return _run(run_dir, record, home, requests)
    except Exception as error:  # noqa: BLE001 whatever NeMo-Run fails with must reach the person who waits for the run
        traceback.print_exc()
        _explain(run_dir, 0, "crash", f"NeMo-Run could not run the job: {type(error).__name__}: {error}")
        return 1
    finally:
        if home.parent != run_dir:
            shutil.rmtree(home, ignore_errors=True)


def _home(run_dir: Path, options: Mapping[str, str]) -> Path:
    """Return the folder for NeMo-Run's files; it writes down every option, so secret ones do not go to a disk."""
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
        return 2
    import nemo_run

    from executors._nemo_run_task import TASK, TITLE, make_script

    if executor.backend == "skypilot":
        _enter_empty_repository(home)
    experiment = nemo_run.Experiment(
        TITLE, executor=nemo_executor, base_dir=str(home), skip_status_at_exit=True, enable_goodbye_message=False
    )
    with experiment:
        experiment.add(make_script(nemo_executor, executor.python, run_dir), name=TASK)
        experiment.run()
        requests.listen()  # torchx has put its own handlers there
        job = _Job(experiment, TASK, run_dir, record["world_size"], executor.backend)
        state = job.wait(requests)
        if requests.cancel or (executor.backend == "slurm" and state != "SUCCEEDED"):  # Slurm may have requeued it
            job.cancel()
        if executor.backend not in _POLL_SECONDS:
            experiment.detach = True  # NeMo-Run would wait for a job that it has not seen end
        if requests.cancel:
            return _CANCELLED_EXIT_CODE
    return _judge(run_dir, record["world_size"], state)


def _enter_empty_repository(folder: Path) -> None:
    """Work in an empty git repository: NeMo-Run takes along the one it is called in, and ranks need none of it."""
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
        """Wait until job and ranks have ended or a cancel is asked for; return what NeMo-Run says of the job."""
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
            # Of a job that a cluster has put back into its queue the ranks had their say as well.
            if has_ended or (all_told and state not in _WAITING):
                disagree_since = disagree_since or time.monotonic()
                # A job that fails keeps no rank from saying how it ended; ranks that were killed cannot.
                if time.monotonic() - disagree_since > _patience(state, self._seconds):
                    return state
            else:
                disagree_since = None
            time.sleep(0.1)
        return state

    def cancel(self) -> None:
        """Have NeMo-Run stop the job."""
        self._experiment.cancel(self._task)
        # NeMo-Run leaves a job alone that Slurm's accounting does not know yet.
        while self._backend == "slurm" and self._state() not in ("SUCCEEDED", "FAILED", "CANCELLED"):
            time.sleep(_LAST_POLL_SECONDS)
            self._experiment.cancel(self._task)

    def _state(self) -> str:
        return str(self._experiment.status(return_dict=True)[self._task]["status"].name)

    def _show(self, state: str) -> None:
        """Have state.json say that the job waits in the queue of a cluster, until a rank has started."""
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
    """Return how long what NeMo-Run says and what ranks wrote may differ before the one is believed without the other.

    A cluster that does not answer for a while says UNKNOWN of a job that runs.
    """
    if state == "FAILED":
        return 2.0
    return 60 * poll_seconds if state == "UNKNOWN" else 20.0


def _exits(run_dir: Path) -> dict[int, dict[str, Any]]:
    """Return what the ranks wrote about their ends, by rank."""
    found = {}
    for path in (run_dir / RANKS_FOLDER).glob("*.json"):
        with contextlib.suppress(OSError, ValueError):
            found[int(path.stem)] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _judge(run_dir: Path, world_size: int, state: str) -> int:
    """Return the exit code of the run, and see to it that failure.json says why it failed."""
    exits = _exits(run_dir)
    failed = sorted(
        (entry["time"], number, entry["code"])
        for number, entry in exits.items()
        if entry["code"] not in (0, EXIT_STOPPED)
    )
    if not failed and any(entry["code"] == EXIT_STOPPED for entry in exits.values()):
        return EXIT_STOPPED
    if not failed:
        if len(exits) == world_size:
            return 0
        told = f"{len(exits)} of {world_size} ranks said how they ended"
        _explain(
            run_dir, 0, "crash", f"NeMo-Run says {state}, and {told}: see logs/launcher.log and {NEMO_RUN_FOLDER}/"
        )
        return 1
    report = read_failure(run_dir)
    # Of a rank that was killed, the others can only report that they have lost it.
    killed = next((entry for entry in failed if -entry[2] in CAUSES), None)
    _, number, code = killed or failed[0]
    if report is None or (killed is not None and report[0] != number):
        _explain(run_dir, number, "crash", describe_exit(code))
    return code if code > 0 else 128 - code


def _explain(run_dir: Path, rank: int, kind: str, message: str) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)
    failure = {"rank": rank, "kind": kind, "message": mask(message, secret_values(os.environ))}
    write_atomically(run_dir / "failure.json", json.dumps(failure) + "\n")


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of NeMo-Run's may wait at the interpreter's shutdown for what will not come.
    os._exit(code)
