"""What `nemo-run resume` says of changed fields, and what it leaves of a run that cannot go on with them."""

import dataclasses
import json
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

import pytest
import yaml

import executors
from executors import State, read_state, write_state
from executors.runs.going_back import find_earlier, set_newer_aside
from neva_model.tokenizers import load_tokenizer
from neva_recipes import llava
from neva_recipes.cli.main import main
from neva_recipes.config import (
    CheckpointError,
    RecipeError,
    load_recipe,
    recipe_to_yaml,
    set_field,
    with_absolute_inputs,
)
from neva_recipes.plan import plan
from neva_recipes.plan.serialization import plan_to_json
from neva_recipes.run_directory import processes
from neva_recipes.run_directory.attempt import keep_before, let_go
from neva_recipes.run_directory.lock import acquire_lock
from neva_recipes.run_directory.names import list_checkpoints
from tests.cli.finished_run import contents
from tests.plan.model_directories import write_model
from tests.plan.test_files import LANGUAGE, SPECIALS, write_tokenizer
from tests.plan.test_projector import write_run


@pytest.fixture
def codes(finished):
    """Return what a plan of going on with some fields of the run finds; its projector is of another random tower."""
    first = llava.pretrain("tiny")
    first.data.tokenizer = "owner/name"
    write_run(Path(), "stage-1", first)
    recipe = load_recipe(finished.path / "recipe.yaml")
    recipe.model.projector.from_pretrained = "stage-1"
    for folder in (finished.path, finished.path / "checkpoints" / "step-00000010"):
        (folder / "recipe.yaml").write_text(recipe_to_yaml(with_absolute_inputs(recipe)))

    def plan(**changes):
        changed = load_recipe(finished.path / "recipe.yaml")
        for field, text in {"trainer.max_steps": "20", **changes}.items():
            set_field(changed, field, text)
        with finished.prepared(changed) as (job, _):
            found = [finding.code for finding in job.plan.findings]
        write_state(finished.path, State(state="failed", exit_code=1))
        return found

    return plan


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("model.language.num_layers=3", "model.language.num_layers is 4 there and 3 in the recipe"),
        ("parallel.use_distributed_optimizer=false", "the optimizer's state is kept in that form"),
        ("model.vision.freeze=false", "the optimizer's state is that of the weights that were trained"),
        ("data.group_by_modality_length=true data.global_batch_size=96", "not a whole number of batches of 96"),
        ("optim.adam_beta2=0.95", "optim.adam_beta2: changed, but nothing is left to train: 10 steps are done"),
        ("trainer.max_steps=4", "10 steps are done, and trainer.max_steps=4 asks for no more: set it higher"),
    ],
)
def test_what_the_checkpoint_refuses_leaves_everything(finished, nemo_run, change, said):
    before = contents(finished)
    error = nemo_run("resume", "digits", *change.split(), check=2).stderr
    assert said in error and len(error.splitlines()) <= 1 + len(change.split())
    assert contents(finished) == before
    assert "succeeded" in nemo_run("status", check=0).stdout


def test_the_new_run_that_is_advised_has_all_that_was_typed(finished, nemo_run):
    write_model(Path("my model"), {**LANGUAGE, "vocab_size": 700})
    words = ["trainer.max_steps=19", "model.language=my model", "optim.lr=1e-4"]
    advised = nemo_run("resume", "digits", *words, check=2).stderr.rpartition(", or start a new run: nemo-run ")[2]
    assert shlex.split(advised) == ["rerun", str(finished.path), *words]
    nemo_run(*shlex.split(advised), "--dry-run", check=0)


def test_a_tokenizer_that_was_read_where_the_language_model_is_no_longer(finished, nemo_run):
    recipe = load_recipe(finished.path / "recipe.yaml")
    recipe.data.tokenizer, recipe.model.language.from_pretrained = None, "/gone/model"
    for folder in (finished.path, finished.path / "checkpoints" / "step-00000010"):
        (folder / "recipe.yaml").write_text(recipe_to_yaml(recipe))
    words = ["resume", "digits", "trainer.max_steps=20"]
    assert nemo_run(*words, check=2).stderr.splitlines()[-1] == (
        "error: model.language.from_pretrained=/gone/model: no such file or folder, and the run reads its tokenizer "
        "there; set data.tokenizer=PATH"
    )
    assert "file-missing" not in nemo_run(*words, "data.tokenizer=owner/name", "--dry-run", check=0).stderr


def test_a_tokenizer_file_with_other_ids_is_refused_by_a_look_too(finished, nemo_run):
    write_tokenizer(Path("tokens"))
    checkpoint = finished.path / "checkpoints" / "step-00000010"
    recipe = load_recipe(finished.path / "recipe.yaml")
    recipe.data.tokenizer, recipe.model.language.vocab_size = str(Path("tokens").absolute()), 600
    for folder in (finished.path, checkpoint):
        (folder / "recipe.yaml").write_text(recipe_to_yaml(recipe))
    record = json.loads((checkpoint / "checkpoint.json").read_text())
    record["vocabulary_digest"] = load_tokenizer("tokens", vocab_size=None).vocabulary_digest()
    (checkpoint / "checkpoint.json").write_text(json.dumps(record))
    words = ["resume", "digits", "trainer.max_steps=20"]
    nemo_run(*words, "--dry-run", check=0)
    write_tokenizer(Path("tokens"), SPECIALS[::-1])
    before = contents(finished)
    for more in (["--dry-run"], []):
        error = nemo_run(*words, *more, check=2).stderr
        assert error.count("\n") == 1 and error.endswith(
            f"{checkpoint.name}: was trained with another vocabulary than that of {recipe.data.tokenizer}: it has "
            "changed since: put back the one of the training\n"
        )
    assert contents(finished) == before


def test_a_run_that_was_cut_short_is_not_ended_by_asking_for_less(finished):
    write_state(finished.path, State(state="cancelled", exit_code=130))
    checkpoint = finished.path / "checkpoints" / "step-00000010"
    recipe = load_recipe(checkpoint / "recipe.yaml")
    recipe.trainer.max_steps = 500
    (checkpoint / "recipe.yaml").write_text(recipe_to_yaml(recipe))
    recipe.trainer.max_steps = 8
    with pytest.raises(CheckpointError, match="nothing is left to train: 10 steps are done"):
        finished.resume_notes(recipe)
    recipe.trainer.max_steps = 11
    assert "changed: trainer.max_steps=11 (it was 500)" in finished.resume_notes(recipe)


def test_a_run_that_failed_in_its_last_validation_goes_on_with_what_mends_that(finished):
    write_state(finished.path, State(state="failed", exit_code=1))
    recipe = load_recipe(finished.path / "recipe.yaml")
    recipe.trainer.limit_val_batches = 3
    assert any("trainer.limit_val_batches" in line for line in finished.resume_notes(recipe))


SAID = [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Hi."}]


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([SAID], None),  # written again
        ([SAID] * 3, " (1 sample then, 3 now): they come in another order"),
        ([[SAID[0], {"from": "gpt", "value": "Hi, my dear friend of old."}]], ": it holds other samples"),
    ],
)
def test_a_data_file_of_other_content_is_told_of(finished, samples, said):
    later = (finished.path / "plan.json").stat().st_mtime + 1
    Path("chats.json").write_text(json.dumps([{"conversations": turns} for turns in samples]))
    os.utime("chats.json", (later, later))
    data = f"data.data_path={Path('chats.json').absolute()}"
    expected = [] if said is None else [f"{data} has changed since the run was planned{said}"]
    assert finished.resume_notes() == expected
    other = load_recipe(finished.path / "recipe.yaml")
    other.trainer.max_steps, other.data.sequence_length = 20, 1024
    assert not any("since the run was planned" in line for line in finished.resume_notes(other))


def test_validation_on_what_the_checkpoint_was_trained_on_is_told_of(finished):
    trained = str(Path(load_recipe(finished.path / "recipe.yaml").data.data_path).absolute())
    Path("copy.json").write_bytes(Path(trained).read_bytes())
    Path("other.json").write_text(json.dumps(json.loads(Path(trained).read_text())[:1] * 9))

    def told(data, *validation):
        changed = load_recipe(finished.path / "recipe.yaml")
        set_field(changed, "trainer.max_steps", "20")
        changed.data.data_path, changed.data.validation_data_path = data, list(validation) or None
        return [line for line in finished.resume_notes(changed) if "was trained on" in line]

    (line,) = told("other.json", "copy.json", "other.json")
    assert line == (
        f"data.validation_data_path={Path('copy.json').absolute()}: the checkpoint was trained on this data, or a copy "
        "of it: val_loss says nothing of new data"
    )
    assert told("other.json", trained) and told("other.json", "other.json") == told("other.json") == []
    assert told(trained, "copy.json") == []  # the plan tells of what the recipe itself trains on


def test_a_data_file_in_another_order_is_told_of(finished):
    plan_file, data = finished.path / "plan.json", Path("chats.json")
    recipe = load_recipe(finished.path / "recipe.yaml")
    # Samples of the same length: number and lengths stay the same.
    samples = [
        {"conversations": [SAID[0], {"from": "gpt", "value": f"{number:04}"}], "more": "x" * 10_000}
        for number in range(2000)
    ]
    order = "its samples may come in another order, and then some repeat in this epoch and others are missed"
    field = f"data.data_path={data.absolute()}"
    changed = [f"{field} has changed since the run was planned: {order}"]
    unknown = [f"{field} was written after the run was planned, and not all of it is compared: {order}"]
    for count, when_same in ((3, []), (2000, unknown)):
        data.write_text(json.dumps(samples[:count]))
        plan_file.write_text(plan_to_json(plan(recipe)))
        assert finished.resume_notes() == []
        for shuffled, later, expected in (
            (samples[:count], 1, when_same),
            (samples[:count][::-1], 2, changed),
            (samples[:count][::-1], -1, changed),  # a copy that has kept its time
        ):
            data.write_text(json.dumps(shuffled))
            moment = plan_file.stat().st_mtime + later
            os.utime(data, (moment, moment))
            assert finished.resume_notes() == expected
    # A plan of an older version keeps no digests.
    older = {key: value for key, value in json.loads(plan_file.read_text()).items() if key != "data_files"}
    plan_file.write_text(json.dumps(older))
    os.utime(plan_file, (moment, moment))
    assert finished.resume_notes() == []
    os.utime(data, (moment + 1, moment + 1))
    assert finished.resume_notes() == unknown


def test_a_record_of_something_else_is_no_checkpoint(finished, nemo_run):
    (finished.path / "checkpoints" / "step-00000010" / "checkpoint.json").write_text('{"step": 10}')
    before = contents(finished)
    assert "does not hold consumed_samples, metrics" in nemo_run("resume", "digits", check=2).stderr
    assert contents(finished) == before


def test_what_has_no_effect_and_a_jump_of_the_rate_are_said_before_the_start(finished, nemo_run):
    # The weights it began with may be gone by now.
    fields = [
        "model.projector.from_pretrained=gone/stage-1",
        "trainer.max_steps=20",
        "optim.adam_beta2=0.95",
        "model.language.init_method_std=0.1",
    ]
    lines = nemo_run("resume", "digits", *fields, check=0).stderr.splitlines()
    assert [line.removeprefix("note: ") for line in lines if line.startswith("note: ")] == [
        "model.language.init_method_std=0.1 has no effect on a run that goes on: the weights come from the checkpoint "
        "(it was 0.02)",
        "model.projector.from_pretrained=gone/stage-1 has no effect on a run that goes on: the weights come from the "
        "checkpoint (it was random)",
        "changed: optim.adam_beta2=0.95 (it was 0.999)",
        "changed: trainer.max_steps=20 (it was 10)",
        "learning rate: 2.5e-05 at step 10, 0.0005 at step 11: the schedule has the length of the run, 20 steps "
        "instead of 10; optim.lr_decay_steps=10 keeps the old one, but zero from step 10 on, where nothing is trained "
        "without a rate such as optim.min_lr=0.0001",
    ]


def test_steps_at_a_rate_of_zero_are_warned_of_where_a_run_goes_on(codes, nemo_run):
    words = ["trainer.max_steps=20", "optim.lr_decay_steps=10"]
    for command in ("resume", "rerun"):
        told = nemo_run(command, "digits", *words, "--dry-run").stdout
        assert "zero after step 10: the last 10 steps of 20 change nothing" in " ".join(told.split())
    assert "lr-zero" not in codes()
    assert "lr-zero" in codes(**{"optim.lr_decay_steps": "10"})
    assert "lr-zero" not in codes(**{"optim.min_lr": "0.0001"})  # what the note of a jump names


FILES = ("recipe.yaml", "plan.json", "job.json", "launch.sh")


def begin_attempt(run, text):
    """Do what a resume with another recipe does, as far as files are concerned."""
    keep_before(run.path)
    for name in FILES:
        (run.path / name).write_text(text)
    write_state(run.path, State(state="created", attempt=2))


def test_an_attempt_that_fails_before_it_trains_leaves_the_run_as_it_was(finished):
    before = contents(finished)
    begin_attempt(finished, "other")
    (finished.path / "recipe.1.yaml").write_bytes(before[Path("recipe.yaml")])
    # A second one, after a kill: the first one has trained nothing, its recipe is not the run's.
    begin_attempt(finished, "another")
    write_state(finished.path, State(state="failed", attempt=3, exit_code=2, reason="no"))
    after = contents(finished)
    assert {path for path in before | after if before.get(path) != after.get(path)} == {Path("state.json")}
    state = read_state(finished.path)
    assert (state.state, state.attempt, state.exit_code, state.reason) == ("succeeded", 3, 2, "not resumed: no")
    assert (state.started, state.ended) == tuple(
        json.loads(before[Path("state.json")])[name] for name in ("started", "ended")
    )


def test_an_attempt_that_fails_before_it_trains_gives_checkpoints_their_names_back(finished):
    folder = finished.path / "checkpoints"
    for name in ("step-00000004", "step-00000007", "aside-step-00000007"):  # one of an earlier attempt
        shutil.copytree(folder / "step-00000010", folder / name)
    before = contents(finished)
    for wanted in ("step-7", "step-4"):  # the first attempt was killed
        begin_attempt(finished, "other")
        set_newer_aside(find_earlier(finished.path, wanted))
    assert [path.name for path in list_checkpoints(folder)] == ["step-00000004"]
    write_state(finished.path, State(state="failed", attempt=3, exit_code=2, reason="no"))
    after = contents(finished)
    assert {path for path in before | after if before.get(path) != after.get(path)} == {Path("state.json")}
    assert read_state(finished.path).state == "succeeded"


def test_a_copy_of_a_recipe_is_none_that_the_run_had(finished):
    before = contents(finished)
    begin_attempt(finished, "other")
    for name in ("recipe.1.yaml", "recipe.2-old.yaml"):
        (finished.path / name).write_bytes(before[Path("recipe.yaml")])
    write_state(finished.path, State(state="failed", attempt=2, exit_code=2, reason="no"))
    after = contents(finished)
    changed = {path for path in before | after if before.get(path) != after.get(path)}
    assert changed == {Path("state.json"), Path("recipe.2-old.yaml")}
    assert read_state(finished.path).state == "succeeded"


def test_an_attempt_that_has_trained_keeps_its_recipe(finished):
    begin_attempt(finished, "other")
    let_go(finished.path)
    write_state(finished.path, State(state="failed", attempt=2, exit_code=2, reason="no"))
    assert {(finished.path / name).read_text() for name in FILES} == {"other"}
    assert read_state(finished.path).state == "failed"
    assert {path.name for path in finished.path.iterdir() if path.name.startswith(".before")} == set()


def test_of_a_run_that_had_failed_the_last_reason_counts(finished):
    write_state(finished.path, State(state="failed", exit_code=1, reason="first"))
    before = contents(finished)
    begin_attempt(finished, "other")
    write_state(finished.path, State(state="failed", attempt=2, exit_code=2, reason="second"))
    assert contents(finished)[Path("recipe.yaml")] == before[Path("recipe.yaml")]
    assert (read_state(finished.path).state, read_state(finished.path).reason) == ("failed", "second")


def test_a_look_at_a_resume_says_what_would_change_and_writes_nothing(finished, nemo_run):
    before = contents(finished)
    fields = ["trainer.max_steps=20", "model.projector.from_pretrained=gone/stage-1"]
    done = nemo_run("resume", "digits", *fields, "--dry-run", check=0)
    assert contents(finished) == before and len(executors.list_runs("runs")) == 1
    assert "max_steps: 20" in done.stdout and "command line, was 10" in done.stdout
    command = done.stdout.partition("\nCommand of 1 process\n")[2].partition("\n\n")[0]
    assert shlex.split(command.replace("\\\n", " "))[-1] == str(finished.path)
    notes = [line.removeprefix("note: ") for line in done.stderr.splitlines()]
    assert f"{finished.name} would go on from step-00000010 of 20 steps" in notes
    assert "changed: trainer.max_steps=20 (it was 10)" in notes
    assert not [line for line in notes if "gone/stage-1: no such file" in line]  # the checkpoint has these weights

    refused = nemo_run("resume", "digits", "model.language.num_layers=3", "--dry-run", check=2)
    assert "model.language.num_layers is 4 there and 3 in the recipe" in refused.stderr and refused.stdout == ""


def test_a_run_in_use_is_refused_without_a_word_of_what_would_change(finished, capfd):
    while (lock := acquire_lock(finished.path)) is None:  # the run may have ended this moment
        time.sleep(0.01)
    write_state(finished.path, State(state="running", supervisor=processes.identify(os.getpid())))
    for words in ([], ["--dry-run"]):
        assert main(["resume", "digits", "trainer.max_steps=20", *words]) == 2
        out, err = capfd.readouterr()
        assert out == "" and err.count("\n") == 1
        assert err.startswith(f"error: run {finished.name} is in use: running")
    os.close(lock)


def test_several_values_of_a_field_name_the_command_that_takes_them(finished, capfd):
    end = "; new runs of its recipe, one for each value: nemo-run {} optim.lr=1e-3,2e-3 --sweep"
    end = end.format(f"runs/{finished.name}/recipe.yaml")
    for words, told in (
        (["rerun", "digits", "--sweep"], "--sweep: nemo-run rerun starts one run"),
        (["rerun", "digits"], "optim.lr='1e-3,2e-3': expected a number > 0"),
        (["resume", "digits", "--sweep"], "--sweep: nemo-run resume starts one run"),
    ):
        assert main([*words, "optim.lr=1e-3,2e-3"]) == 2
        assert capfd.readouterr() == ("", f"error: {told}{end}\n")
    # The command is one that works, as far as it can be seen without a start.
    command = shlex.split(end.partition("nemo-run ")[2])
    assert main([*command, "--dry-run"]) == 0
    assert "2 points" in capfd.readouterr().out
    assert main(["rerun", "digits", "optim.lr=1e-3,no"]) == 2
    assert capfd.readouterr().err == "error: optim.lr='1e-3,no': expected a number > 0\n"


def test_a_resume_in_python_takes_names_as_the_command_does(finished):
    other = executors.plan_job(llava.finetune("tiny"), executors.LocalExecutor(), name="other")
    other = executors.start_job(dataclasses.replace(other, argv=(sys.executable, "-c", "")), detach=True)
    assert other.wait() == 0
    recipe = load_recipe(finished.path / "recipe.yaml")
    recipe.trainer.max_steps, recipe.model.projector.from_pretrained = 20, "other"
    with finished.prepared(recipe) as (job, _):
        planned = yaml.safe_load(job.recipe_yaml)
        assert planned["model"]["projector"]["from_pretrained"] == str(other.path)
    assert recipe.model.projector.from_pretrained == "other"
    recipe.model.projector.from_pretrained = "othre"
    for call in (finished.resume, finished.resume_notes):
        with pytest.raises(RecipeError, match=r"^model.projector.from_pretrained=othre: no such run in .*mean other"):
            call(recipe)


def test_of_weights_that_the_checkpoint_holds_nothing_is_said(finished, codes, capfd):
    beginning = {"trainer.seed": "7", "model.language.from_pretrained": "none"}
    frozen = {"model.vision.from_pretrained": "none"}  # and so it stays
    words = [f"{field}={text}" for field, text in {**beginning, **frozen}.items()]
    assert main(["resume", "digits", "trainer.max_steps=20", *words, "--dry-run"]) == 0
    said = " ".join("".join(capfd.readouterr()).split())
    assert "trained beside" not in said and "begins from random weights" not in said
    assert "the vision tower keeps random weights" in said
    told = codes(**beginning, **frozen)
    assert "projector-mismatch" not in told and "random-weights" not in told and "random-and-frozen" in told
    # Without a checkpoint it begins anew.
    (finished.path / "checkpoints").rename(finished.path / "gone")
    told = codes(**beginning, **frozen)
    assert told.count("projector-mismatch") == 2 and {"random-weights", "random-and-frozen"} <= set(told)


def test_a_look_at_a_rerun_shows_the_new_run(finished, nemo_run):
    before = contents(finished)
    done = nemo_run("rerun", "digits", "optim.lr=0.25", "--name", "again", "--dry-run", check=0)
    assert contents(finished) == before and len(executors.list_runs("runs")) == 1
    assert "lr: 0.25" in done.stdout and "/runs/again-" in done.stdout
    assert "note: --dry-run wrote and started nothing\n" in done.stderr
    assert "would be refused" not in done.stderr


@pytest.mark.parametrize("command", ["rerun", "resume"])
def test_a_look_says_that_this_machine_would_refuse_it(command, finished, nemo_run):
    words = [command, "digits", "trainer.max_steps=20", "data.tokenizer=/gone/tokenizer", "--dry-run"]
    done = nemo_run(*words, check=0)
    refused, closing = done.stderr.splitlines()[-2:]
    assert refused == "note: a launch from this machine would be refused: file-missing"
    assert closing == "note: --dry-run wrote and started nothing"
    # Errors stand below all other findings and notes.
    apart = nemo_run(*words, "optim.min_lr=1", check=2)
    *_, error, refused, closing = apart.stderr.splitlines()
    assert error.startswith("error: "), apart.stderr
