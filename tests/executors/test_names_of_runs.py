"""Runs by name, in commands and in the fields of a recipe; and what a recipe takes over from the run it names."""

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path, PurePosixPath

import fiddle as fdl
import pytest
import sentencepiece
from executor_jobs import make_recipe

import executors
from executors.runs.references import owner_of
from neva_recipes import gpt, llava
from neva_recipes.cli.arguments import apply_overrides
from neva_recipes.cli.main import main
from neva_recipes.config import RecipeError, RunError, load_recipe, recipe_to_yaml
from neva_recipes.inspection import inspect_recipe, source_of
from neva_recipes.run_directory import processes
from neva_recipes.run_directory.standing import given_name
from neva_recipes.run_directory.state import State, write_state
from tests.sentencepiece_models import train_sentencepiece


def plant(runs_dir, directory, day, name=None, recipe=None):
    """Write what a run needs to be found, as if it had been started on that day of January."""
    recipe = recipe or make_recipe()
    job = executors.plan_job(recipe, name=name or directory.partition("-2025")[0], runs_dir=runs_dir)
    path = runs_dir / directory
    path.mkdir(parents=True)
    record = {**json.loads(job.to_json()), "created": f"2025-01-{day:02}T00:00:00+00:00"}
    (path / "job.json").write_text(json.dumps(record))
    (path / "recipe.yaml").write_text(recipe_to_yaml(recipe))
    write_state(path, State(state="succeeded", exit_code=0))
    return path


@pytest.fixture
def runs(runs_dir):
    """Three runs of two names, the newest of them a pipeline with two stages."""
    paths = {
        "old": plant(runs_dir, "text-20250101-000000", 1),
        "new": plant(runs_dir, "text-20250102-000000", 2),
        "pipe": plant(runs_dir, "pipe-20250103-000000", 3),
    }
    for stage in ("first", "second"):
        paths[stage] = plant(paths["pipe"] / "stages", stage, 3, stage)
    return paths


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("latest", ["pipe"]),
        ("text-*", ["old", "new"]),
        ("tex?", ["old", "new"]),
        ("*-2025010[13]-*", ["old", "pipe"]),
        ("pipe/first", ["first"]),
        ("latest/second", ["second"]),
        ("pipe-*/*", ["first", "second"]),
    ],
)
def test_what_a_word_stands_for(runs_dir, runs, word, found):
    assert [run.path for run in executors.find_runs(word, runs_dir)] == [runs[name] for name in found]
    assert executors.find_run(word, runs_dir).path == runs[found[-1]]


@pytest.mark.parametrize("kind", [str, Path, PurePosixPath])
def test_a_run_by_its_path_in_any_form(runs_dir, runs, kind, monkeypatch):
    monkeypatch.chdir(runs_dir)
    run = executors.Run(kind("text-20250101-000000"))
    monkeypatch.chdir("/")
    assert run.path == runs["old"] and run.name == "text-20250101-000000"
    assert run.status().state == "succeeded" and run.saved_plan() is None and run.newest_checkpoint() is None


def test_a_pattern_in_another_folder(runs_dir, runs, tmp_path):
    assert executors.find_run(f"{runs_dir}/text-*", tmp_path).path == runs["new"]
    assert executors.find_run(f"{runs_dir}/latest", tmp_path).path == runs["pipe"]


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_launch_that_fails_before_it_begins_leaves_the_name_to_the_older_run(runs_dir, runs, is_killed, monkeypatch):
    def fail(self, job, **_):
        raise RunError("the backend is down")

    with monkeypatch.context() as patch, pytest.raises(RunError, match="the backend is down"):
        patch.setattr(executors.LocalExecutor, "start", fail)
        executors.run(make_recipe(), name="text", runs_dir=runs_dir)
    newest = executors.find_run("latest", runs_dir)
    assert newest.status().state == "failed" and newest.name.startswith("text-") and newest.path not in runs.values()
    if is_killed:  # before it could tell of the failure
        process = subprocess.Popen(["true"])
        supervisor = processes.identify(process.pid)
        process.wait()
        write_state(newest.path, State(state="created", supervisor=supervisor))
    assert executors.find_run("text", runs_dir).path == runs["new"]
    # One whose job was accepted, or that has been started again, has begun.
    began = {"started": "2025-01-05T00:00:00+00:00"}, {"attempt": 2}, {"supervisor": {"slurm_job_id": "1"}}
    for fields in began:
        state = {"state": "failed", "supervisor": processes.identify(1), **fields}
        write_state(newest.path, State(exit_code=1, **state))
        assert executors.find_run("text", runs_dir).path == newest.path
    # Where there is no other, it is the one that is meant.
    write_state(newest.path, State(state="failed", exit_code=1, supervisor=processes.identify(1)))
    for name in ("old", "new"):
        shutil.rmtree(runs[name])
    assert executors.find_run("text", runs_dir).path == newest.path


def test_what_is_really_called_so_goes_first(runs_dir, runs, tmp_path, monkeypatch):
    (tmp_path / "latest").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="no run 'latest'"):
        executors.find_run("latest", runs_dir)
    monkeypatch.chdir(runs_dir)
    odd = plant(runs_dir, "text-*", 1, "odd")
    assert [run.path for run in executors.find_runs("text-*", runs_dir)] == [odd]
    real = plant(runs_dir, "latest", 1, "odd")
    assert executors.find_run("latest", runs_dir).path == real


def test_an_older_run_may_be_called_latest(runs_dir, runs, capsys):
    path = plant(runs_dir, "latest-20250101-000000", 1, "other")
    (path / "job.json").write_text((path / "job.json").read_text().replace('"name": "other"', '"name": "latest"'))
    (path / "recipe.yaml").write_text(recipe_to_yaml(make_recipe(name="latest")))
    assert executors.find_run("latest", runs_dir).path == path
    for words in (["status"], ["resume", "--dry-run"]):
        assert main([words[0], "latest", *words[1:], "--runs-dir", str(runs_dir)]) == 0
        assert path.name in "".join(capsys.readouterr())
    assert main(["rerun", "latest", "--dry-run", "--runs-dir", str(runs_dir)]) == 2
    assert capsys.readouterr().err.startswith("error: name='latest': ")


def test_a_folder_called_stages_is_of_a_pipeline_only_beside_its_file(tmp_path):
    runs_dir = tmp_path / "stages"
    other, path = (plant(runs_dir, f"{name}-20250101-000000", 1) for name in ("other", "text"))
    recipe = make_recipe()
    recipe.model.language.from_pretrained = "other"
    # Names in a changed recipe are those of the folder that the run is in.
    with_path = executors.Run(path)._with_named_runs(recipe)
    assert with_path.model.language.from_pretrained == str(other)
    assert owner_of(executors.Run(path)) is None
    (tmp_path / "pipeline.json").write_text("{}")
    assert owner_of(executors.Run(path)).path == tmp_path


def test_the_name_that_a_run_was_given(runs):
    (runs["pipe"] / "pipeline.json").write_text("{}")
    names = {key: given_name(path) for key, path in runs.items()}
    assert names == {"old": "text", "new": "text", "pipe": "pipe", "first": "pipe/first", "second": "pipe/second"}
    (runs["pipe"] / "job.json").write_text("[]")
    assert given_name(runs["first"]) is given_name(runs["pipe"]) is None


def test_nothing_of_that_name(runs_dir, runs):
    with pytest.raises(RunError, match=r"no run matches 'vision-\*' in .*nemo-run status lists them"):
        executors.find_runs("vision-*", runs_dir)
    with pytest.raises(RunError, match="run pipe has no stage 'third': expected one of first, second"):
        executors.find_runs("pipe/third", runs_dir)
    with pytest.raises(RunError, match="no run 'latest'"):
        executors.find_runs("latest", runs_dir / "none")
    checkpoint = runs["old"] / "checkpoints" / "step-00000002"
    checkpoint.mkdir(parents=True)
    with pytest.raises(RunError, match=re.escape(f"no run '{checkpoint}' in {runs_dir} (did you mean {runs['old']}?)")):
        executors.find_runs(str(checkpoint), runs_dir)


def test_a_name_like_that_of_a_stage(runs_dir, runs):
    """Whoever has trained by a pipeline asks for the recipe of its stage."""
    plant(plant(runs_dir, "llava.pipeline-20250104-000000", 4) / "stages", "finetune", 4, "llava.finetune")
    with pytest.raises(RunError, match=r"did you mean llava\.pipeline/finetune"):
        executors.find_run("llava.finetune", runs_dir)


ONE_RUN = ("logs", "verify", "show", "status", "status --watch", "status --format json", "diff gpt.pretrain")
CHANGED = ("resume --dry-run", "rerun --dry-run")


@pytest.mark.parametrize("command", [words.split() for words in (*ONE_RUN, *CHANGED)], ids=" ".join)
def test_a_command_on_one_run_tells_which_of_several_it_takes(command, runs_dir, runs, capsys):
    (runs["pipe"] / "pipeline.json").write_text("{}")

    def notes(word):
        main([*command, word, "--runs-dir", str(runs_dir)])
        return [line for line in capsys.readouterr().err.splitlines() if " stands for " in line]

    assert notes("text-*") == ["note: text-* stands for 2 runs: text-20250102-000000, the last of them, is taken"]
    assert notes("pipe/*") == [
        "note: pipe/* stands for 2 runs: pipe-20250103-000000/second, the last of them, is taken"
    ]
    (plant(runs_dir, "pipe-20250104-000000", 4) / "pipeline.json").write_text("{}")
    assert notes("pip?") == ["note: pip? stands for 2 runs: pipe-20250104-000000, the last of them, is taken"]
    assert notes("text") == notes("text-*2-*") == notes("latest") == []


def test_cancel_leaves_alone_what_has_ended(runs_dir, runs, capsys):
    assert main(["cancel", "text-*", "--runs-dir", str(runs_dir)]) == 2
    assert "no run that matches 'text-*' is going on" in capsys.readouterr().err


def starting_from(name, part="language"):
    recipe = llava.pretrain("tiny")
    apply_overrides(recipe, {f"model.{part}.from_pretrained": name})
    return recipe


@pytest.mark.parametrize(
    ("word", "run"), [("text", "new"), ("text-20250101-000000", "old"), ("latest", "pipe"), ("pipe/first", "first")]
)
@pytest.mark.parametrize("part", ["language", "vision", "projector"])
def test_a_part_starts_from_a_run_by_name(runs_dir, runs, word, run, part):
    given = starting_from(word, part)
    settled = executors.settle(given, runs_dir)
    node = getattr(settled.model, part)
    assert node.from_pretrained == str(runs[run])
    source = source_of(node, "from_pretrained")
    assert (source.kind, source.meaning) == ("command line", word)
    assert source.replaced == getattr(llava.pretrain("tiny").model, part).from_pretrained
    assert getattr(given.model, part).from_pretrained == word  # the caller's recipe stays as it is
    again = executors.settle(settled, runs_dir)
    assert recipe_to_yaml(again) == recipe_to_yaml(settled)


def test_a_name_set_in_python(runs_dir, runs):
    recipe = llava.pretrain("tiny")
    recipe.model.projector.from_pretrained = "text-*"
    settled = executors.settle(recipe, runs_dir)
    assert settled.model.projector.from_pretrained == str(runs["new"])
    assert str(source_of(settled.model.projector, "from_pretrained")) == "from text-*"


def test_a_path_goes_before_a_run_and_a_run_before_the_hub(runs_dir, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").mkdir()
    for name in ("text", "lmsys/vicuna-7b-v1.5", str(tmp_path / "gone"), "~/gone"):
        assert executors.settle(starting_from(name), runs_dir).model.language.from_pretrained == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("txet", "model.language.from_pretrained=txet: no such run in {}, file or folder (did you mean text"),
        ("vision-*", "model.language.from_pretrained=vision-*: matches no run in {}"),
        ("pipe/third", "model.language.from_pretrained=pipe/third: run pipe has no stage 'third'"),
    ],
)
def test_a_name_that_is_nothing(runs_dir, runs, name, message):
    with pytest.raises(RecipeError) as raised:
        executors.plan_job(starting_from(name), runs_dir=runs_dir)
    assert message.format(runs_dir) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_nothing_like_it_is_left_to_the_plan(runs_dir):
    (finding,) = [
        finding
        for finding in inspect_recipe(starting_from("zzz"), runs_dir=runs_dir).notes
        if "model.language.from_pretrained" in finding.fields
    ]
    assert f"model.language.from_pretrained=zzz: no such run in {runs_dir}, file or folder" in finding.line()
    missing = executors.plan_job(starting_from("zzz"), runs_dir="my runs").missing
    assert any(line.endswith("from_pretrained=zzz: no such run in my runs, file or folder") for line in missing)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A SentencePiece tokenizer of 300 pieces."""
    folder = tmp_path_factory.mktemp("tokenizer")
    words = [f"{first}{second} {second}" for first in "abcdefghijklmnopqrst" for second in "aeiouy"]
    train_sentencepiece(folder / "tokenizer.model", words * 5, 300)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    return folder / "tokenizer.model", processor.GetPieceSize()


def test_a_tiny_vocabulary_is_that_of_the_tokenizer(tokenizer, runs_dir):
    path, pieces = tokenizer
    assert pieces != llava.pretrain("tiny").model.language.vocab_size
    for make in (gpt.pretrain, llava.pretrain, llava.finetune):
        recipe = make("tiny")
        recipe.data.tokenizer = str(path)
        language = executors.settle(recipe, runs_dir).model.language
        assert language.vocab_size == pieces
        assert str(source_of(language, "vocab_size")) == "from data.tokenizer"
    recipe.model.use_im_start_end = True
    assert executors.settle(recipe, runs_dir).model.language.vocab_size == pieces + 2


def test_no_other_vocabulary_is_changed(tokenizer, runs_dir, tmp_path):
    path, _ = tokenizer
    published = llava.pretrain("7b")
    in_python, on_command_line = llava.pretrain("tiny"), llava.pretrain("tiny")
    in_python.model.language.vocab_size = 512
    apply_overrides(on_command_line, {"model.language.vocab_size": "512"})
    (tmp_path / "saved.yaml").write_text(recipe_to_yaml(llava.pretrain("tiny")))
    for recipe in (published, in_python, on_command_line, load_recipe(tmp_path / "saved.yaml")):
        size = recipe.model.language.vocab_size
        recipe.data.tokenizer = str(path)
        assert executors.settle(recipe, runs_dir).model.language.vocab_size == size


def test_a_vocabulary_that_nothing_here_tells_stays_a_placeholder(runs_dir):
    recipe = gpt.pretrain("tiny")
    recipe.data.tokenizer = "some/where"
    language = executors.settle(recipe, runs_dir).model.language
    assert (language.vocab_size, source_of(language, "vocab_size").kind) == (512, "placeholder")


def test_tokenizer_and_vocabulary_come_along(tokenizer, runs_dir):
    path, pieces = tokenizer
    text = gpt.pretrain("tiny")
    text.data.tokenizer = str(path)
    run = plant(runs_dir, "text-20250101-000000", 1, "text", executors.settle(text, runs_dir))
    settled = executors.settle(starting_from("text"), runs_dir)
    assert settled.data.tokenizer == str(path)
    assert settled.model.language.vocab_size == pieces
    for node, name in ((settled.data, "tokenizer"), (settled.model.language, "vocab_size")):
        assert str(source_of(node, name)) == "from model.language"
    # A size of its own goes before that of its tokenizer: the weights have it.
    text.model.language.vocab_size = 400
    (run / "recipe.yaml").write_text(recipe_to_yaml(text))
    assert executors.settle(starting_from("text"), runs_dir).model.language.vocab_size == 400
    # What is typed stays, and the run resumed later is the one that was meant then.
    typed = starting_from("text")
    apply_overrides(typed, {"data.tokenizer": "other/one", "model.language.vocab_size": "999"})
    settled = executors.settle(typed, runs_dir)
    assert (settled.data.tokenizer, settled.model.language.vocab_size) == ("other/one", 999)


def test_stages_of_a_pipeline(tokenizer, runs_dir, runs):
    path, pieces = tokenizer
    text = gpt.pretrain("tiny")
    text.data.tokenizer = str(path)
    first = executors.Stage("text", text)
    vision = starting_from("text-*", "vision")
    vision.model.language.from_pretrained = first.output
    second = executors.Stage("vision", vision)
    planned = executors.plan_pipeline(executors.Pipeline("both", first >> second), runs_dir=runs_dir)
    recipes = [entry.plan.recipe for entry in planned.stages]
    assert [recipe.model.language.vocab_size for recipe in recipes] == [pieces, pieces]
    assert recipes[1].data.tokenizer == str(path)
    assert recipes[1].model.vision.from_pretrained == str(runs["new"])
    vision.model.vision.from_pretrained = "txet"
    broken = executors.Pipeline("both", first >> dataclasses.replace(second, work=vision))
    with pytest.raises(RecipeError, match=r"vision: model.vision.from_pretrained=txet: no such run"):
        executors.plan_pipeline(broken, runs_dir=runs_dir)


def test_commands_that_look_at_recipes(runs_dir, runs, capsys):
    words = ["llava.pretrain", "size=tiny", "model.vision.from_pretrained=text", "--runs-dir", str(runs_dir)]
    main([*words, "--dry-run"])
    shown = capsys.readouterr().out
    assert f"from_pretrained: {runs['new']} " in " ".join(shown.split())
    assert "command line: text" in " ".join(shown.split())
    main([*words, "--dry-run", "--format", "json"])
    document = json.loads(capsys.readouterr().out)
    assert document["recipe"]["model"]["vision"]["from_pretrained"] == str(runs["new"])
    assert document["sources"]["model.vision.from_pretrained"]["meaning"] == "text"
    assert main(["diff", words[0], *words[1:]]) == 0
    assert str(runs["new"]) in capsys.readouterr().out


def test_a_recipe_that_cannot_be_built_is_left_to_the_plan(runs_dir):
    recipe = llava.pretrain("tiny")
    recipe.model.language = fdl.Config(dict, from_pretrained=3)
    with pytest.raises(RecipeError, match=r"model.language describes dict|model.language=dict"):
        executors.plan_job(recipe, runs_dir=runs_dir)
