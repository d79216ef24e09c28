"""The end of a Slurm job's batch script: `python -m executors._slurm_end RUN_DIR EXIT_CODE`.

Writes how the run has ended, or puts the job back into the queue where the ranks have stopped to go on later. A job
that Slurm itself is ending, or has started again elsewhere, is left alone: whoever looks at the run asks Slurm.
"""

import dataclasses
import shutil
import signal
import sys
import time
from pathlib import Path

from executors._rank import EXIT_STOPPED
from executors._slurm_cluster import job_standing, requeue_job, restarts_of
from executors._slurm_run import (
    await_submission,
    failure_of,
    has_stopped,
    note_requeue,
    own_job_id,
    restart_number,
)
from executors._state import State, now, read_json, write_state
from neva_recipes.config import RunError

__all__ = ["main"]

_PATIENCE_SECONDS = 300.0


def main(arguments: list[str]) -> int:
    """End the job of this environment.

    Args:
        arguments: Run directory, and exit code of the batch script.

    Returns:
        0, or 75 (`EXIT_STOPPED`) where the run has stopped before its end and will not go on: Slurm must not start what
        waits for its success, though no rank has failed.
    """
    # A requeue ends the batch script by this signal while it is being asked for.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    run_dir, code, job_id = Path(arguments[0]), int(arguments[1]), own_job_id()
    state = await_submission(run_dir, job_id)
    if not _is_mine(job_id):
        return 0
    if has_stopped(run_dir, code):
        return _go_on(run_dir, state, job_id)
    elif code == 0:
        _finish(run_dir, state, "succeeded", 0, None)
    else:
        _finish(run_dir, state, "failed", *failure_of(run_dir, code))
    return 0


def _is_mine(job_id: str) -> bool:
    """Return whether the job runs, and by this script; while Slurm's controller is away, wait for it."""
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
    largest = read_json(run_dir / "job.json")["executor"]["max_requeues"]
    try:
        count, problem = note_requeue(run_dir)
        if largest is not None and count > largest:
            problem = f"stopped to go on later, and not requeued: executor.max_requeues={largest}"
        if problem is None:
            # Written first: the requeue may end this process.
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
        # The controller may have gone in this moment: before it heard of it, or before it answered.
        if _is_mine(job_id):
            requeue_job(job_id)


def _finish(run_dir: Path, state: State, word: str, code: int, reason: str | None) -> None:
    write_state(run_dir, dataclasses.replace(state, state=word, exit_code=code, reason=reason, ended=now()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
