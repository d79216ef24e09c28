"""The end of a Slurm job's batch script: `python -m executors.slurm.end RUN_DIR EXIT_CODE [SETUP_LINE]`.

Writes the final state of the run, or requeues the job if the ranks have stopped to go on later. Does nothing for a job
that Slurm itself is ending or has restarted: the state of such a run is taken from Slurm.
"""

import dataclasses
import shutil
import signal
import sys
import time
from pathlib import Path

from executors.slurm.cluster import job_standing, requeue_job, restarts_of
from executors.slurm.run import (
    await_submission,
    failure_of,
    has_stopped,
    is_asked_to_stop,
    last_lines,
    note_requeue,
    own_job_id,
    restart_number,
)
from executors.slurm.setup import setup_failure
from neva_recipes.config import RunError
from neva_recipes.run_directory.exit_codes import EXIT_MISTAKE, EXIT_STOPPED, STOPPED
from neva_recipes.run_directory.layout import JOB_FILE
from neva_recipes.run_directory.state import State, now, read_json, write_state

__all__ = ["main"]

_PATIENCE_SECONDS = 300.0


def main(arguments: list[str]) -> int:
    """End the job of this environment.

    Args:
        arguments: Run directory, exit code of the batch script, and the line of the setup if the script ended there.

    Returns:
        0, or 75 (`EXIT_STOPPED`) if the run has stopped before its end and will not go on: no rank has failed, but
        Slurm must not start jobs that depend on its success.
    """
    # A requeue sends this signal to the batch script while scontrol is still running.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    run_dir, code, job_id = Path(arguments[0]), int(arguments[1]), own_job_id()
    state = await_submission(run_dir, job_id)
    if not _is_mine(job_id):
        return 0
    if has_stopped(run_dir, code):
        if is_asked_to_stop(run_dir, job_id):
            _finish(run_dir, state, "cancelled", EXIT_STOPPED, STOPPED)
            return EXIT_STOPPED
        return _go_on(run_dir, state, job_id)
    elif len(arguments) > 2:
        executor = read_json(run_dir / JOB_FILE)["executor"]
        reason = setup_failure(executor, int(arguments[2]), code, next(iter(last_lines(run_dir)[-1:]), ""))
        _finish(run_dir, state, "failed", EXIT_MISTAKE, reason)
        return 0 if code else EXIT_STOPPED
    elif code == 0:
        _finish(run_dir, state, "succeeded", 0, None)
    else:
        _finish(run_dir, state, "failed", *failure_of(run_dir, code))
    return 0


def _is_mine(job_id: str) -> bool:
    """Return whether the job runs and this script belongs to its newest start; wait if Slurm's controller is down."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            standing = job_standing(job_id)
            return standing is None or (standing.state == "RUNNING" and restarts_of(job_id) == restart_number())
        except RunError as error:
            if time.monotonic() > deadline or shutil.which("squeue") is None:
                print(f"{error}: taken as running", file=sys.stderr)
                return True
        time.sleep(1)


def _go_on(run_dir: Path, state: State, job_id: str) -> int:
    largest = read_json(run_dir / JOB_FILE)["executor"]["max_requeues"]
    try:
        count, problem = note_requeue(run_dir)
        if largest is not None and count > largest:
            problem = f"stopped to go on later, and not requeued: executor.max_requeues={largest}"
        if problem is None:
            # The state is written first, because the requeue may end this process.
            supervisor = {"slurm_job_id": job_id}
            reason = "stopped to go on later: requeued"
            write_state(run_dir, dataclasses.replace(state, state="queued", reason=reason, supervisor=supervisor))
            _requeue(job_id)
    except (RunError, OSError) as error:
        problem = f"stopped to go on later, but cannot be requeued: {error}"
    if problem is not None:
        _finish(run_dir, state, "failed", 1, problem)
        return EXIT_STOPPED
    return 0


def _requeue(job_id: str) -> None:
    try:
        requeue_job(job_id)
    except RunError:
        # The controller may have gone down before it received the request, or before it answered.
        if _is_mine(job_id):
            requeue_job(job_id)


def _finish(run_dir: Path, state: State, word: str, code: int, reason: str | None) -> None:
    write_state(run_dir, dataclasses.replace(state, state=word, exit_code=code, reason=reason, ended=now()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
