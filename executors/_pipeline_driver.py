"""The process of a pipeline: `python -m executors._pipeline_driver DIRECTORY`, a job of the local executor.

It starts every stage whose predecessors have succeeded, prints what the stages print, and ends when nothing is left to
start. What has succeeded before is not run again, and what still runs (on a cluster) is waited for, so that resuming a
pipeline is starting this program again.
"""

import contextlib
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from executors._logs import LogReader
from executors._pipeline_directory import StageSpec, conclusion, read_spec, stage_run, stage_statuses, stage_table
from executors._standing import ENDED, POLL_SECONDS, Standing, ask_together
from executors._state import State, now, write_state
from executors.base import RANK_VARIABLES
from executors.job import read_job_record
from neva_recipes.config import RunError, UserError
from neva_recipes.secrets import mask, secret_values

__all__ = ["main"]


class _Stage:
    """A stage, and how far it has come."""

    def __init__(self, spec: StageSpec, directory: Path) -> None:
        self.name, self.after = spec.name, spec.after
        self.run = stage_run(directory, spec.name)
        self.standing = Standing(self.run.path)
        self._log = self.run.path / "logs" / "joined.log"
        self._reader = LogReader(self._log)
        self._cancel_asked = False
        written = self.standing.state()
        # What is there when the pipeline begins: done, still under way, or to be started (again).
        self.is_active = written.state in ("queued", "running") or (
            written.state == "created" and bool(written.supervisor)
        )
        self.succeeded = written.state == "succeeded"
        self.failure: str | None = None
        self.is_blocked = False

    @property
    def waits(self) -> bool:
        """Whether it is still to be started."""
        return not (self.is_active or self.succeeded or self.is_blocked or self.failure is not None)

    def start(self) -> None:
        self._reader = LogReader(self._log, self._log.stat().st_size if self._log.exists() else 0)
        try:
            self.run.resume(detach=True)
        except UserError as error:
            self._fail_to_start(str(error))
        self.is_active = True

    def cancel(self) -> None:
        if not self._cancel_asked:
            self._cancel_asked = True
            with contextlib.suppress(RunError):  # it has just ended by itself
                self.standing.request_cancel(False)

    def look(self) -> Iterator[str]:
        """Yield what it has printed, and take notice of its end."""
        state = self.standing.state()
        yield from self._reader.read_lines()
        if state.state in ENDED:
            yield from self._reader.read_rest()
            self.is_active = False
            self.succeeded = state.state == "succeeded"
            if not self.succeeded:
                self.failure = f"{state.state}: {state.reason}" if state.reason else state.state

    def _fail_to_start(self, reason: str) -> None:
        before = self.standing.state()
        failed = State(state="failed", attempt=before.attempt, exit_code=2, reason=reason, ended=now())
        write_state(self.run.path, dataclasses.replace(failed, started=failed.ended))


class _Driver:
    """Runs the stages of one pipeline."""

    def __init__(self, directory: Path) -> None:
        spec = read_spec(directory)
        self._directory, self._parallel = directory, spec.parallel
        self._stages = {stage.name: _Stage(stage, directory) for stage in spec.stages}
        self._is_cancelled = False
        signal.signal(signal.SIGTERM, self._take_signal)

    def run(self) -> int:
        """Run what is left to run, and return the exit code of the pipeline."""
        while True:
            if not self._is_cancelled:
                self._start_ready()
            active = [stage for stage in self._stages.values() if stage.is_active]
            if not active:
                break
            ask_together(stage.standing for stage in active)
            for stage in active:
                if self._is_cancelled:
                    stage.cancel()
                for line in stage.look():
                    print(f"[{stage.name}] {line}")
                if not stage.is_active:
                    print(f"--- {stage.name} {stage.failure or 'succeeded'}")
            sys.stdout.flush()
            time.sleep(POLL_SECONDS)
        stages = stage_statuses(self._directory, goes_on=False)
        print(*stage_table(stages), sep="\n", flush=True)
        code, reason = conclusion(stages)
        if reason is not None:
            failure = {"rank": 0, "kind": "stages", "message": mask(reason, secret_values(os.environ))}
            with contextlib.suppress(OSError):  # a full disk; the log says it too
                (self._directory / "failure.json").write_text(json.dumps(failure), encoding="utf-8")
        return code

    def _start_ready(self) -> None:
        free = self._parallel - sum(stage.is_active for stage in self._stages.values())
        for stage in self._stages.values():
            before = [self._stages[name] for name in stage.after]
            if stage.waits and any(other.failure is not None or other.is_blocked for other in before):
                stage.is_blocked = True
            if free > 0 and stage.waits and all(other.succeeded for other in before):
                print(f"--- {stage.name} starts: {stage.run.path}", flush=True)
                stage.start()
                free -= 1

    def _take_signal(self, *_: object) -> None:
        self._is_cancelled = True


def main(arguments: list[str]) -> int:
    """Run the pipeline of a directory and return its exit code."""
    if len(arguments) != 1:
        print("usage: python -m executors._pipeline_driver DIRECTORY", file=sys.stderr)
        return 2
    directory = Path(arguments[0])
    record = read_job_record(directory)
    # What was set for this process is not for the stages: each gets what its own executor sets.
    for name in (*RANK_VARIABLES, *(set(record["env"]) - set(record["executor"]["env"]))):
        os.environ.pop(name, None)
    return _Driver(directory).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
