"""The process of a pipeline: `python -m executors.pipelines.driver DIRECTORY`, a job of the local executor.

It starts every stage whose predecessors have succeeded, prints the output of the stages, and ends when no stage is left
to start. It runs a stage that has succeeded again only if its input has changed since, and waits for stages that still
run (on a cluster), so that a pipeline is resumed by starting this program again.
"""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from executors.job_record import read_job_record
from executors.pipelines.directory import (
    conclusion,
    present_settings,
    stage_label,
    stage_run,
    stage_statuses,
    stage_table,
    was_stopped,
)
from executors.pipelines.spec import StageSpec, read_spec
from executors.pipelines.stage_start import resume_stage
from executors.process.logs import LogReader
from executors.process.surroundings import RANK_VARIABLES
from executors.runs.standing import ENDED, POLL_SECONDS, Standing, ask_together
from neva_recipes.config import RunError, UserError
from neva_recipes.run_directory.exit_codes import EXIT_MISTAKE, EXIT_STOPPED, STOP_SIGNAL
from neva_recipes.run_directory.layout import FAILURE_FILE, joined_log
from neva_recipes.run_directory.state import UNDER_WAY, State, now, seconds_so_far, write_state
from neva_recipes.secrets import mask, secret_values
from neva_recipes.terminal import one_line

__all__ = ["main"]


class _Stage:
    """A stage and its progress."""

    def __init__(self, spec: StageSpec, directory: Path, *, is_older: bool) -> None:
        self.name, self.after = spec.name, spec.after
        self.run = stage_run(directory, spec.name)
        self.title = one_line(stage_label(spec.name, present_settings(self.run, spec.settings)))
        self.standing = Standing(self.run.path)
        self._log = joined_log(self.run.path)
        self._reader = LogReader(self._log)
        self._cancel_asked = self._stop_asked = False
        written = self.standing.state()
        # When the pipeline begins, a stage may have succeeded, be running, or have to be started (again).
        self.is_active = written.state in UNDER_WAY or (written.state == "created" and bool(written.supervisor))
        self.succeeded = written.state == "succeeded" and not is_older
        self._is_older = is_older
        self.failure: str | None = None
        self.is_blocked = False

    @property
    def waits(self) -> bool:
        """Whether it still has to be started."""
        return not (self.is_active or self.succeeded or self.is_blocked or self.failure is not None)

    def start(self) -> None:
        self._reader = LogReader(self._log, self._log.stat().st_size if self._log.exists() else 0)
        try:
            # Its warnings were shown when the pipeline was started.
            resume_stage(self.run, is_older=self._is_older)
        except UserError as error:
            self._fail_to_start(str(error))
        self.is_active = True

    def cancel(self) -> None:
        if not self._cancel_asked:
            self._cancel_asked = True
            with contextlib.suppress(RunError):  # the run has just ended by itself
                self.standing.request_cancel(False)

    def stop(self) -> None:
        if not self._stop_asked:
            self._stop_asked = True
            with contextlib.suppress(RunError):  # the run has just ended by itself
                self.standing.request_stop_of_stage()

    def look(self) -> Iterator[str]:
        """Yield its new output, and record its end."""
        state = self.standing.state()
        yield from self._reader.read_lines()
        if state.state in ENDED:
            yield from self._reader.read_rest()
            self.is_active = False
            # One that has succeeded before, and could not be started again, says so in its reason.
            self.succeeded = state.state == "succeeded" and not (self._is_older and state.reason)
            if not self.succeeded:
                self.failure = f"{state.state}: {state.reason}" if state.reason else state.state

    def _fail_to_start(self, reason: str) -> None:
        before, moment = self.standing.state(), now()
        failed = State(
            state="failed",
            attempt=before.attempt,
            exit_code=EXIT_MISTAKE,
            reason=reason,
            started=moment,
            ended=moment,
            earlier_seconds=seconds_so_far(self.run.path, before),
        )
        write_state(self.run.path, failed)


class _Driver:
    """Runs the stages of one pipeline."""

    def __init__(self, directory: Path) -> None:
        spec = read_spec(directory)
        self._directory, self._parallel = directory, spec.parallel
        older = {stage.name for stage in stage_statuses(directory, goes_on=True) if stage.older_than is not None}
        self._stages = {stage.name: _Stage(stage, directory, is_older=stage.name in older) for stage in spec.stages}
        self._is_cancelled = False
        signal.signal(signal.SIGTERM, self._take_signal)

    def run(self) -> int:
        """Run the remaining stages, and return the exit code of the pipeline."""
        is_stopped = False
        while True:
            # The signal stays blocked, as in a rank that trains; this only checks whether it is pending.
            is_stopped = is_stopped or STOP_SIGNAL in signal.sigpending()
            if not (self._is_cancelled or is_stopped):
                self._start_ready()
            active = [stage for stage in self._stages.values() if stage.is_active]
            if not active:
                break
            ask_together(stage.standing for stage in active)
            for stage in active:
                if self._is_cancelled:
                    stage.cancel()
                elif is_stopped:
                    stage.stop()
                for line in stage.look():
                    print(f"[{stage.name}] {line}")
                if not stage.is_active:
                    print(f"--- {stage.title} {stage.failure or 'succeeded'}")
            sys.stdout.flush()
            time.sleep(POLL_SECONDS)
        stages = stage_statuses(self._directory, goes_on=False)
        print(*stage_table(stages), sep="\n", flush=True)
        code, reason = conclusion(stages)
        if is_stopped and code and was_stopped(stages):
            return EXIT_STOPPED
        if reason is not None:
            failure = {"rank": 0, "kind": "stages", "message": mask(reason, secret_values(os.environ))}
            with contextlib.suppress(OSError):  # full disk; the log holds the reason too
                (self._directory / FAILURE_FILE).write_text(json.dumps(failure), encoding="utf-8")
        return code

    def _start_ready(self) -> None:
        free = self._parallel - sum(stage.is_active for stage in self._stages.values())
        for stage in self._stages.values():
            before = [self._stages[name] for name in stage.after]
            if stage.waits and any(other.failure is not None or other.is_blocked for other in before):
                stage.is_blocked = True
            if free > 0 and stage.waits and all(other.succeeded for other in before):
                print(f"--- {stage.title} starts: {stage.run.path}", flush=True)
                stage.start()
                free -= 1

    def _take_signal(self, *_: object) -> None:
        self._is_cancelled = True


def main(arguments: list[str]) -> int:
    """Run the pipeline of a directory and return its exit code."""
    if len(arguments) != 1:
        print("usage: python -m executors.pipelines.driver DIRECTORY", file=sys.stderr)
        return EXIT_MISTAKE
    directory = Path(arguments[0])
    record = read_job_record(directory)
    # Variables of this process do not apply to the stages, for which their own executor sets them.
    for name in (*RANK_VARIABLES, *(set(record["env"]) - set(record["executor"]["env"]))):
        os.environ.pop(name, None)
    return _Driver(directory).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
