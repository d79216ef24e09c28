"""What the command says at the end of a run that has failed."""

import json
import shlex
import sys
from datetime import datetime

import pytest

from executors import Run, RunStatus
from neva_recipes.cli.report.finish import finish, stopped_line
from neva_recipes.run_directory.state import State, write_state
from tests.cli.command import in_terminal

# A run that has failed: its lines are printed, as by a launch in the foreground, before the command ends.
FAILED = """
import sys
from datetime import datetime
from pathlib import Path
from executors import Run, RunStatus
from neva_recipes.cli.report.finish import finish

class FailedRun(Run):
    def wait(self):
        return 2

    def status(self):
        return RunStatus("failed", 2, "the disk is full", datetime.now(), datetime.now(), None, 1)

    def logs(self, follow=False, rank=None, *, since=None, tail=None, fold=False):
        return iter(sys.argv[1:][-tail:])

print(*sys.argv[1:], sep="\\n", flush=True)
sys.exit(finish(FailedRun(Path("runs/mine").resolve()), detached=False))
"""
TOLD = ["step 1", "[0] error: the disk is full"]
WHOLE = "error: run mine failed: the disk is full"
ABOVE = "error: run mine failed: its last lines say why"
AGAIN = f"{ABOVE}, and nemo-run logs mine --tail 5 shows them"


@pytest.mark.parametrize(
    ("lines", "streams", "end"),
    [
        (TOLD, "", ABOVE),
        (TOLD, "2>&1 | cat", ABOVE),
        (TOLD, ">both.txt 2>&1; cat both.txt", ABOVE),
        # What the other end of a pipe prints must not come between the lines of the command.
        (TOLD, "| cat >out.txt; cat out.txt", AGAIN),
        (TOLD, "| grep step >out.txt; cat out.txt", AGAIN),
        (TOLD, ">out.txt", WHOLE),
        (TOLD, "2>err.txt; cat err.txt", WHOLE),
        (TOLD, "2>err.txt | cat; cat err.txt", WHOLE),
        ([*TOLD, *["more"] * 30], "", WHOLE),
        (["error: something else"], "", WHOLE),
    ],
)
def test_a_failure_is_told_once(lines, streams, end, folder):
    (folder / "failed.py").write_text(FAILED)
    command = shlex.join([sys.executable, "failed.py", *lines])
    shown = in_terminal(f"({command}) {streams}").replace("\r", "").replace("\n  ", " ").splitlines()
    assert end in shown
    if end is not WHOLE and "grep" not in streams:  # each line that was printed, and the reason once
        assert sorted(shown) == sorted([*TOLD, end])


OF_STAGE = "one failed: the disk is full; not run: two"
TABLE = ["two    not run  -     -     -         -", "one: the disk is full"]


@pytest.mark.parametrize(
    ("lines", "reason", "end"),
    [
        (TABLE, OF_STAGE, ABOVE),
        (TABLE[:1], OF_STAGE, f"error: run mine failed: {OF_STAGE}"),
        (TABLE, "killed by signal 9", "error: run mine failed: killed by signal 9"),
    ],
)
def test_the_failure_of_a_stage_is_told_once(lines, reason, end, folder):
    for name, state in (("one", "failed"), ("two", "created")):
        stage = folder / "runs" / "mine" / "stages" / name
        (stage / "metrics").mkdir(parents=True)
        (stage / "job.json").write_text('{"executor": {"kind": "local"}, "argv": []}')
        failed = {"exit_code": 2, "reason": "the disk is full"} if state == "failed" else {}
        write_state(stage, State(state=state, **failed))
    stages = [{"name": "one", "after": [], "settings": {}}, {"name": "two", "after": ["one"], "settings": {}}]
    spec = {"schema": 1, "name": "mine", "parallel": 1, "stages": stages}
    (folder / "runs" / "mine" / "pipeline.json").write_text(json.dumps(spec))
    (folder / "failed.py").write_text(FAILED.replace("the disk is full", reason))
    shown = in_terminal(shlex.join([sys.executable, "failed.py", *lines])).replace("\r", "").replace("\n  ", " ")
    assert shown.splitlines() == [*lines, end]


class CancelledRun(Run):
    """A run that was cancelled after some steps."""

    step = None

    def wait(self):
        return 130

    def status(self):
        return RunStatus("cancelled", 130, "on request", datetime.now(), datetime.now(), self.step, 1)


@pytest.mark.parametrize(
    ("holds", "step", "saved", "end"),
    [
        ("pipeline.json", None, [], "nemo-run resume PATH goes on with it"),
        ("recipe.yaml", None, [], "it has saved no checkpoint yet, and nemo-run resume PATH begins anew"),
        ("recipe.yaml", 30, [], "it has saved no checkpoint yet, and nemo-run resume PATH begins anew"),
        ("recipe.yaml", 30, [10, 20], "nemo-run resume PATH goes on from step 20 of the 30 that it has trained"),
        ("recipe.yaml", 30, [10, 31], "nemo-run resume PATH goes on from step 31, the last that it has trained"),
        ("recipe.yaml", None, [10], "nemo-run resume PATH goes on from step 10"),
    ],
)
def test_how_a_run_that_was_stopped_goes_on(holds, step, saved, end, tmp_path, monkeypatch):
    run = CancelledRun(tmp_path / "mine")
    run.step = step
    run.path.mkdir()
    (run.path / holds).touch()
    for number in saved:
        checkpoint = run.path / "checkpoints" / f"step-{number:08}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "checkpoint.json").write_text("{}")
    told = []
    monkeypatch.setattr("neva_recipes.cli.report.finish.print_line", lambda line, _: told.append(line))
    assert finish(run, detached=False) == 130
    assert told == [f"mine cancelled: on request; {end.replace('PATH', str(run.path))}"]


def test_a_stage_that_was_stopped_goes_on_by_the_name_that_it_has(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, holds in (("3", "recipe.yaml"), ("evaluate", "tool.json")):
        stage = CancelledRun(tmp_path / "runs" / "mine" / "stages" / name)
        stage.path.mkdir(parents=True)
        (stage.path / holds).touch()
        (tmp_path / "runs" / "mine" / "pipeline.json").touch()
        own = stopped_line(stage)
        what = {
            "3": "it has saved no checkpoint yet, and nemo-run resume mine/3 begins anew",
            "evaluate": "nemo-run resume mine goes on with it",
        }
        assert own == f"mine/{name} cancelled: on request; {what[name]}"


def trained_stage(pipeline, name, state, *saved):
    """Write a stage that has trained 30 steps."""
    path = pipeline / "stages" / name
    (path / "metrics").mkdir(parents=True)
    (path / "job.json").write_text("{}")
    (path / "metrics" / "metrics.csv").write_text("step,train_loss\n30,1.5\n")
    write_state(path, State(state=state, exit_code=0 if state == "succeeded" else 130))
    for step in saved:
        checkpoint = path / "checkpoints" / f"step-{step:08}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "checkpoint.json").write_text("{}")


def test_the_stages_of_a_pipeline_that_begin_anew_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pipeline = CancelledRun(tmp_path / "runs" / "mine")
    pipeline.path.mkdir(parents=True)
    (pipeline.path / "pipeline.json").touch()
    trained_stage(pipeline.path, "kept-nothing", "succeeded")
    trained_stage(pipeline.path, "saved", "cancelled", 20)
    (pipeline.path / "stages" / "waits").mkdir()
    (pipeline.path / "stages" / "waits" / "job.json").write_text("{}")
    start = "mine cancelled: on request; nemo-run resume mine goes on with it"
    assert stopped_line(pipeline) == start
    trained_stage(pipeline.path, "first", "cancelled")
    assert stopped_line(pipeline) == f"{start}; mine/first has saved no checkpoint yet, and begins anew"
    trained_stage(pipeline.path, "second", "lost")
    assert stopped_line(pipeline) == (f"{start}; mine/first, mine/second have saved no checkpoint yet, and begin anew")
