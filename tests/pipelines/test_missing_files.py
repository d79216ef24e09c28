"""What a stage will make hides no file that is missing beside it."""

import pytest

import executors
from executors import Pipeline, Stage, TrainTokenizer
from executors.findings import refused_here, require_here
from neva_recipes import gpt
from neva_recipes.config import RecipeError, config, with_absolute_inputs
from neva_recipes.plan import plan


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    """Two stages that take what others make, and each a file beside it, `here` or `gone`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.txt").write_text("a red square\n" * 50)

    def make(beside):
        first = Stage("first", config(TrainTokenizer, files="here.txt", vocab_size=300))
        again = Stage("again", config(TrainTokenizer, files=[first.output / "a.txt", f"{beside}.txt"], vocab_size=300))
        recipe = gpt.pretrain("tiny")
        recipe.data.tokenizer = first.output
        recipe.data.data_path = [first.output / "a.txt", f"{beside}.txt"]
        return Pipeline("words", first >> [again, Stage("train", recipe)])

    return make


def test_a_missing_file_beside_the_output_of_a_stage_is_named_before_anything_runs(pipeline, tmp_path):
    planned = executors.plan_pipeline(pipeline("gone"), executors.LocalExecutor(), runs_dir=tmp_path / "runs")
    tool, recipe = planned.not_here
    assert tool == "again: files=gone.txt: no such file or folder"
    made = planned.job.run_dir / "stages" / "first" / "tokenizer" / "a.txt"
    assert recipe.startswith(f"train: data.data_path={made},gone.txt: gone.txt: no such file; ")
    assert planned.refused_here == ("file-missing",)
    with pytest.raises(RecipeError, match=r"files=gone\.txt: no such file"):
        executors.start_pipeline(planned)
    assert not (tmp_path / "runs").exists()


def test_what_stages_make_is_not_missed(pipeline, tmp_path):
    planned = executors.plan_pipeline(pipeline("here"), executors.LocalExecutor(), runs_dir=tmp_path / "runs")
    assert planned.not_here == () == planned.problems


def test_a_resume_names_it_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = gpt.pretrain("tiny")
    recipe.data.tokenizer = str(tmp_path / "stages" / "first")
    recipe.data.data_path = [str(tmp_path / "stages" / "first" / "a.txt"), "gone.txt"]
    planned = plan(with_absolute_inputs(recipe))
    stages = tmp_path / "stages"
    (missing,) = [error for error in refused_here(planned, stages) if error.code == "file-missing"]
    assert "gone.txt: no such file" in missing.line()
    with pytest.raises(RecipeError, match=r"gone\.txt: no such file"):
        require_here(planned, stages)
