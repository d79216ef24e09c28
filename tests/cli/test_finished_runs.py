"""What `nemo-run resume` says of a run that has nothing left to train, and of its earlier checkpoints."""

import json
import shlex
import shutil

import pytest

from executors import State, write_state
from neva_recipes.cli.main import main
from neva_recipes.config import CheckpointError, load_recipe, recipe_to_yaml, with_absolute_inputs
from neva_recipes.plan.resuming import notes
from tests.cli.finished_run import contents


def test_an_earlier_checkpoint_is_named_where_it_helps_and_only_there(finished, nemo_run):
    def answer(*words):
        return nemo_run("resume", "digits", *words, check=2).stderr.partition("set it higher, or ")[2]

    run, newest = shlex.quote(str(finished.path)), finished.path / "checkpoints" / "step-00000010"
    anew = f"start a new run: nemo-run rerun {run} optim.adam_beta2=0.95\n"
    assert answer("optim.adam_beta2=0.95") == answer("optim.adam_beta2=0.95", "--from", "step-10") == anew
    earlier = newest.with_name("step-00000004")
    shutil.copytree(newest, earlier)
    record = json.loads((earlier / "checkpoint.json").read_text()) | {"step": 4, "consumed_samples": 512}
    (earlier / "checkpoint.json").write_text(json.dumps(record))
    way = f"nemo-run resume {run} --from step-4 optim.adam_beta2=0.95"
    for more in ([], ["--from", "step-10"]):
        assert answer("optim.adam_beta2=0.95", *more) == f"go on from an earlier checkpoint: {way}\n"
    nemo_run(*shlex.split(way)[1:], "--dry-run", check=0)
    # It would have nothing left to train either, or is damaged.
    assert answer("trainer.max_steps=4") == f"start a new run: nemo-run rerun {run} trainer.max_steps=4\n"
    (earlier / "checkpoint.json").unlink()
    assert answer("optim.adam_beta2=0.95") == anew


def test_each_of_many_checkpoints_is_read_once_at_most(finished, monkeypatch):
    checkpoint, recipe = finished.path / "checkpoints" / "step-00000010", load_recipe(finished.path / "recipe.yaml")
    told = json.loads((checkpoint / "checkpoint.json").read_text())
    for step in [*range(4, 10), *range(11, 45)]:
        shutil.copytree(checkpoint, checkpoint.with_name(f"step-{step:08}"))
        record = told | {"step": step, "consumed_samples": 128 * step}
        (checkpoint.with_name(f"step-{step:08}") / "checkpoint.json").write_text(json.dumps(record))
    read, really = [], notes.read_record
    monkeypatch.setattr(notes, "read_record", lambda path: read.append(path.name) or really(path))
    # One of 30 steps has 14 checkpoints behind its end; what asks for fewer steps than the first has no way back.
    back, anew = "go on from an earlier checkpoint: .* --from step-29 ", "start a new run: nemo-run rerun"
    for steps, seen, way in ((30, [44, 29], back), (3, [44], anew)):
        recipe.trainer.max_steps, recipe.optim.adam_beta2 = steps, 0.95
        with pytest.raises(CheckpointError, match=way):
            finished.resume_notes(recipe)
        assert read == [f"step-{step:08}" for step in seen]
        read.clear()


def test_a_look_at_a_resume_of_a_finished_run_says_what_the_resume_says(finished, capfd):
    recipe = load_recipe(finished.path / "recipe.yaml")
    for length in ("trainer.max_steps", "trainer.max_epochs"):
        assert main(["resume", "digits"]) == 0
        (line,) = capfd.readouterr().err.splitlines()
        assert f"is finished: 1{'0 of 10 steps are' if length.endswith('steps') else ' pass over the data'}" in line
        assert main(["resume", "digits", "--dry-run"]) == 0
        error = capfd.readouterr().err
        assert line in error.splitlines() and "would go on" not in error
        recipe.trainer.max_steps, recipe.trainer.max_epochs = None, 1
        for folder in (finished.path, finished.path / "checkpoints" / "step-00000010"):
            (folder / "recipe.yaml").write_text(recipe_to_yaml(with_absolute_inputs(recipe)))


def test_a_finished_run_is_not_started_again(finished, nemo_run):
    before = contents(finished)
    line = (
        f"note: run {finished.name} is finished: 10 of 10 steps are done; to train longer, set trainer.max_steps=20\n"
    )
    for words in ([], ["--detach"], ["trainer.max_steps=10"]):
        assert nemo_run("resume", "digits", *words, check=0).stderr == line
    assert finished.resume() is False
    assert (contents(finished), finished.status().attempt, finished.wait()) == (before, 1, 0)
    changed = load_recipe(finished.path / "recipe.yaml")
    changed.optim.adam_beta2 = 0.95
    with pytest.raises(CheckpointError, match="changed, but nothing is left to train"):
        finished.resume(changed)
    # An earlier checkpoint is a reason to train again, and so is a run that has not ended well.
    for go_on_from, state in (("step-10", "succeeded"), (None, "lost")):
        write_state(finished.path, State(state=state, exit_code=0))
        with finished.prepared(go_on_from=go_on_from) as (job, _):
            assert job.plan is not None
    write_state(finished.path, State(state="cancelled", exit_code=130))
    assert finished.finished_line() is None
    assert finished.resume(detach=True) is True
    assert finished.wait() == 0


def test_a_run_of_whole_passes_is_finished_too_unless_its_data_has_changed(finished):
    recipe = load_recipe(finished.path / "recipe.yaml")
    recipe.trainer.max_steps, recipe.trainer.max_epochs = None, 1
    for folder in (finished.path, finished.path / "checkpoints" / "step-00000010"):
        (folder / "recipe.yaml").write_text(recipe_to_yaml(with_absolute_inputs(recipe)))
    assert finished.finished_line() == (
        f"run {finished.name} is finished: 1 pass over the data, 10 steps, is done; to train longer, set "
        "trainer.max_epochs=2"
    )
    recipe.trainer.max_epochs = 2
    assert finished.finished_line(recipe) is None
    recipe.trainer.max_epochs, recipe.trainer.early_stopping_patience = 1, 3
    assert finished.finished_line(recipe) is None
