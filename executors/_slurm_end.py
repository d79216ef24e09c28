"""The end of a Slurm job's batch script: `python -m executors._slurm_end RUN_DIR EXIT_CODE`.

Writes how the run has ended, or puts the job back into the queue where the ranks have stopped to go on later. A job
that Slurm itself is ending is left alone: whoever looks at the run asks Slurm.
"""

import dataclasses
import json
import signal
import sys
from pathlib import Path

from executors._rank import EXIT_STOPPED
from executors._slurm_cluster import job_standing, requeue_job
from executors._slurm_run import await_submission, failure_of, has_stopped, note_requeue, own_job_id
from executors._state import State, now, write_state
from neva_recipes.config import RunError

__all__ = ["main"]


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
    try:
        standing = job_standing(job_id)
    except RunError as error:
        print(f"{error}: taken as running", file=sys.stderr)
        standing = None
    if standing is not None and standing.state != "RUNNING":
        return 0
    if has_stopped(run_dir):
        return _go_on(run_dir, state, job_id)
    elif code == 0:
        _finish(run_dir, state, "succeeded", 0, None)
    else:
        _finish(run_dir, state, "failed", *failure_of(run_dir, code))
    return 0


def _go_on(run_dir: Path, state: State, job_id: str) -> int:
    largest = json.loads((run_dir / "job.json").read_text(encoding="utf-8"))["executor"]["max_requeues"]
    count, problem = note_requeue(run_dir)
    if largest is not None and count > largest:
        problem = f"stopped with its work saved, and not requeued: executor.max_requeues={largest}"
    if problem is None:
        # Written first: the requeue may end this process.
        reason = "stopped to go on later: requeued"
        supervisor = {"slurm_job_id": job_id}
        write_state(run_dir, dataclasses.replace(state, state="queued", reason=reason, supervisor=supervisor))
        try:
            requeue_job(job_id)
        except RunError as error:
            problem = f"stopped with its work saved, but cannot be requeued: {error}"
    if problem is not None:
        _finish(run_dir, state, "failed", 1, problem)
        return EXIT_STOPPED
    return 0


def _finish(run_dir: Path, state: State, word: str, code: int, reason: str | None) -> None:
    write_state(run_dir, dataclasses.replace(state, state=word, exit_code=code, reason=reason, ended=now()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
