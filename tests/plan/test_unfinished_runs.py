"""Runs that have not done all that their recipe asks for, as sources of weights."""

import json
import subprocess
from pathlib import Path

import pytest

from neva_recipes import llava
from neva_recipes.config import build, recipe_to_yaml, set_field
from neva_recipes.plan.data.files import check_files
from neva_recipes.plan.origins.unfinished import unfinished_note
from neva_recipes.run_directory.processes import identify


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plant(name: str, state: str | None, step: int | None, *fields: str, reason: str | None = None) -> None:
    """A run directory with one checkpoint, or none, as a run leaves it."""
    recipe = llava.finetune("tiny")
    for field in ("trainer.max_epochs=none", *fields):
        set_field(recipe, *field.split("=", 1))
    run = Path("runs", name)
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(recipe_to_yaml(recipe))
    if state is not None:
        (run / "state.json").write_text(json.dumps({"state": state, "reason": reason}))
    if step is not None:
        checkpoint = run / f"checkpoints/step-{step:08d}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "recipe.yaml").write_text(recipe_to_yaml(recipe))
        (checkpoint / "checkpoint.json").write_text(json.dumps({"step": step, "files": {}}))


def told(source: str, code: str = "unfinished-run") -> list[str]:
    recipe = llava.finetune("tiny")
    recipe.model.language.from_pretrained = recipe.model.projector.from_pretrained = source
    return [finding.line() for finding in check_files(build(recipe)) if finding.code == code]


def test_a_run_that_was_cancelled(place: Path) -> None:
    plant("half", "cancelled", 30, "trainer.max_steps=500")
    checkpoint = "runs/half/checkpoints/step-00000030"
    assert told("runs/half") == [
        "model.language.from_pretrained=runs/half, model.projector.from_pretrained=runs/half: run half was cancelled: "
        "its newest checkpoint is of step 30 of 500; set "
        f"model.language.from_pretrained={checkpoint} model.projector.from_pretrained={checkpoint}, or "
        "nemo-run resume runs/half goes on with it first"
    ]
    assert told(checkpoint) == []
    assert unfinished_note(Path("runs/half")) == (
        "run half was cancelled: its newest checkpoint is of step 30 of 500, which is taken"
    )
    assert unfinished_note(Path(checkpoint)) is None


def test_a_run_that_goes_on(place: Path) -> None:
    plant("now", "running", 80, "trainer.max_steps=400")
    (line,) = told("runs/now")
    assert "run now has not ended: its newest checkpoint is of step 80 of 400, and the one that is the newest" in line
    # Its checkpoints come and go: none is named.
    assert line.endswith(" is taken; wait until it has ended, which nemo-run status runs/now shows")
    assert unfinished_note(Path("runs/now")) == (
        "run now has not ended: its newest checkpoint is of step 80 of 400; the newest is taken"
    )


def test_a_run_whose_supervisor_is_gone(place: Path) -> None:
    plant("dead", "running", 30, "trainer.max_steps=500")
    plant("begun", "running", None)
    with subprocess.Popen(["sleep", "60"]) as process:
        supervisor = identify(process.pid)
        process.kill()
    for name in ("dead", "begun"):
        state = {"state": "running", "started": "2026-01-31T16:00:00+00:00", "supervisor": supervisor}
        Path("runs", name, "state.json").write_text(json.dumps(state))
        job = {"name": name, "created": "", "argv": [], "cwd": "", "world_size": 1, "executor": {"kind": "local"}}
        Path("runs", name, "job.json").write_text(json.dumps(job))
    why = "its supervisor is gone: killed, or the machine went down"
    (line,) = told("runs/dead")
    assert f": run dead is lost ({why}): its newest checkpoint is of step 30 of 500; set " in line
    assert line.endswith(", or nemo-run resume runs/dead goes on with it first")
    assert unfinished_note(Path("runs/dead")) == (
        f"run dead is lost ({why}): its newest checkpoint is of step 30 of 500, which is taken"
    )
    (line,) = told("runs/begun", "checkpoint-unusable")
    assert line.endswith(f"from_pretrained=runs/begun: the run has no checkpoint (it is lost: {why})")


@pytest.mark.parametrize(
    ("state", "step", "fields", "is_told"),
    [
        ("failed", 5, ["trainer.max_steps=10"], True),
        ("failed", 5, ["trainer.max_epochs=1"], True),
        ("succeeded", 10, ["trainer.max_steps=10"], False),
        # Stopped early, or only the best is kept.
        ("succeeded", 5, ["trainer.max_steps=10"], False),
        # Cancelled in its last validation; all steps are done.
        ("cancelled", 10, ["trainer.max_steps=10"], False),
        # A copy of the checkpoints alone.
        (None, 5, ["trainer.max_steps=10"], False),
    ],
)
def test_what_has_finished(place: Path, state: str | None, step: int, fields: list[str], is_told: bool) -> None:
    plant("one", state, step, *fields)
    assert bool(told("runs/one")) == is_told
    assert (unfinished_note(Path("runs/one")) is not None) == is_told


@pytest.mark.parametrize(
    ("state", "reason", "said"),
    [
        ("failed", "rank 0: no such image", "the run has no checkpoint (it failed: rank 0: no such image)"),
        ("cancelled", None, "the run has no checkpoint (it was cancelled)"),
        ("running", None, "the run has no checkpoint yet"),
    ],
)
def test_a_run_without_a_checkpoint(place: Path, state: str, reason: str | None, said: str) -> None:
    plant("none", state, None, reason=reason)
    (line,) = told("runs/none", "checkpoint-unusable")
    assert line.endswith(f"from_pretrained=runs/none: {said}")


def test_an_earlier_run_of_the_name_that_has_a_checkpoint_is_named(place: Path) -> None:
    times = {"1": 20, "2": 30, "3": None, "4": None, "5": 10}
    for time, step in times.items():
        plant(f"x-{time}", "cancelled", step)
        named = "x" if time != "2" else "other"
        job = {"name": named, "created": "", "argv": [], "cwd": "", "world_size": 1, "executor": {"kind": "local"}}
        Path(f"runs/x-{time}/job.json").write_text(json.dumps(job))
    (line,) = told("runs/x-4", "checkpoint-unusable")
    assert line.endswith("the run has no checkpoint (it was cancelled); x-1, an earlier run of its name, has one")


def test_a_state_that_cannot_be_read_says_nothing(place: Path) -> None:
    plant("one", None, 5, "trainer.max_steps=10")
    Path("runs/one/state.json").write_text("[]")
    assert told("runs/one") == []
