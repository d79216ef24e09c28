"""Layouts that are listed fit and keep every rule, their overrides give the plan they promise; what cannot fit."""

import dataclasses
import json
import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import executors
from neva_recipes import gpt, llava, neva
from neva_recipes.cli.commands.fit import with_fit_command
from neva_recipes.cli.main import main
from neva_recipes.config import RecipeError, build, set_field
from neva_recipes.plan import check_recipe, fit, plan
from neva_recipes.plan.checks import with_values
from neva_recipes.plan.cost.gpus import GPUS
from neva_recipes.plan.fitting.fit import fewest_gpus, search_layouts
from neva_recipes.plan.fitting.memory_check import NO_RECOMPUTE

GIB = 2**30

RECIPES = {
    "llava.pretrain": lambda: llava.pretrain("13b"),
    "llava.finetune": llava.finetune,
    "neva.finetune": neva.finetune,
    "gpt.pretrain": gpt.pretrain,
}


def errors(recipe, gpu):
    return [finding for finding in check_recipe(recipe, gpu) if finding.severity == "error"]


@settings(max_examples=12, deadline=None)
@given(
    name=st.sampled_from(sorted(RECIPES)),
    gpus=st.sampled_from([1, 2, 4, 6, 8, 16, 32]),
    gpu=st.sampled_from(sorted(GPUS)),
    sequence_length=st.sampled_from([2048, 16384]),
)
def test_every_candidate_fits_and_is_valid(name, gpus, gpu, sequence_length):
    recipe = RECIPES[name]()
    recipe.data.sequence_length = sequence_length
    recipe.model.language.max_position_embeddings = sequence_length
    found = search_layouts(recipe, gpus=gpus, gpu=gpu)
    assert (not found.candidates) == (found.nearest is not None or found.obstacle is not None)
    times = [candidate.cost.step_seconds for candidate in found.candidates]
    assert times == sorted(times)
    for candidate in found.candidates:
        assert errors(candidate.recipe, GPUS[gpu]) == []
        assert candidate.layout.world_size == gpus
        assert max(stage.total for stage in candidate.memory) <= GPUS[gpu].memory_gib * GIB
        assert candidate.recipe.parallel.tensor_model_parallel_size <= candidate.layout.processes_per_node
    if found.nearest is not None:
        assert found.nearest.peak > GPUS[gpu].memory_gib * GIB


@pytest.mark.parametrize(("name", "gpus", "gpu"), [("llava.finetune", 8, "a100-80g"), ("gpt.pretrain", 64, "h100-80g")])
def test_pasted_overrides_give_the_promised_plan(name, gpus, gpu, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    candidates = fit(RECIPES[name](), gpus=gpus, gpu=gpu)
    assert len(candidates) > 5
    for candidate in candidates[:: len(candidates) // 5]:
        recipe = RECIPES[name]()
        for path, value in candidate.overrides.items():
            set_field(recipe, path, str(value).lower())
        promised = plan(recipe, gpu=gpu)
        assert (promised.memory, promised.cost, promised.layout) == (candidate.memory, candidate.cost, candidate.layout)
        assert not [finding for finding in promised.errors if finding.about != "files"]
    assert main(["fit", name, "--gpus", str(gpus), "--gpu", gpu, "--limit", "100"]) == 0
    table, _, pasted = capsys.readouterr().out.partition("to be pasted")
    assert all(len(line) <= 80 for line in table.splitlines() + pasted.splitlines())
    rows = [line.split() for line in table.splitlines() if line[:4].strip().isdigit()]
    assert [row[3] for row in rows] == [f"{candidate.peak / GIB:.1f}" for candidate in candidates]
    # The command as a shell reads it.
    words = shlex.split(pasted.partition(":\n")[2].replace("\\\n", " "))
    assert words[:2] == ["nemo-run", name]
    assert main([*words[1:], "--dry-run", "--gpu", gpu, "--format", "json"]) in (0, 2)
    shown = json.loads(capsys.readouterr().out)
    assert shown["plan"]["cost"]["step_seconds"] == pytest.approx(candidates[0].cost.step_seconds)


def test_virtual_stages_where_they_pay():
    """Each candidate with virtual stages leaves the hardware's share of the bubble that the schedule has, and pays."""
    recipe = llava.finetune("13b")
    recipe.model.projector.from_pretrained = "owner/projector"
    candidates = fit(recipe, gpus=64)
    interleaved = [one for one in candidates if one.recipe.parallel.virtual_pipeline_model_parallel_size]
    assert interleaved[0] is candidates[0]
    # The plan has no better advice than this.
    assert [one.code for one in plan(candidates[0].recipe, gpu="h100-80g").findings if one.about != "files"] == []
    assert {one.layout.pipeline_model_parallel_size for one in interleaved} >= {2, 4, 8}
    for candidate in interleaved:
        layout, parallel = candidate.layout, candidate.recipe.parallel
        stages, pieces = layout.pipeline_model_parallel_size, parallel.virtual_pipeline_model_parallel_size
        # 40 layers: as many in each piece, dealt out in turn.
        size = 40 // (stages * pieces)
        starts = [[(piece * stages + stage) * size for piece in range(pieces)] for stage in range(stages)]
        assert [[chunk.start for chunk in stage.chunks] for stage in layout.stages] == starts
        microbatches = 128 // layout.data_parallel_size // candidate.recipe.data.micro_batch_size
        assert microbatches % stages == 0
        assert layout.bubble == pytest.approx((stages - 1) / (pieces * microbatches + stages - 1))
        plainer = {**candidate.overrides, "parallel.virtual_pipeline_model_parallel_size": "none"}
        changed = llava.finetune("13b")
        for path, value in plainer.items():
            set_field(changed, path, str(value).lower())
        plain = plan(changed, gpu="h100-80g")
        assert plain.cost.step_seconds_of["bubble"] == pytest.approx(
            pieces * candidate.cost.step_seconds_of["bubble"], rel=0.1
        )
        assert plain.cost.step_seconds > 1.02 * candidate.cost.step_seconds


def test_what_must_not_fit():
    """Bytes by hand: a trained 13B takes 6 + 12/8 bytes a weight where it is not split over 8 GPUs, 98 GB."""
    sizes = {candidate.layout.model_parallel_size for candidate in fit(llava.finetune("13b"), gpus=8, gpu="a100-40g")}
    # 13.0e9 * (6 + 12 / 4) / 2 = 59 GB in two parts, (6 + 12 / 2) / 4 = 39 GB in four, 18 / 8 = 29 GB in eight.
    assert sizes == {8} or sizes == {4, 8}
    assert 1 in {candidate.layout.model_parallel_size for candidate in fit(llava.finetune(), gpus=8, gpu="a100-80g")}
    # One GPU would hold 18 bytes of each of 6.7e9 weights, 121 GB: of those here only a b200 does.
    assert [name for name in GPUS if fit(llava.finetune(), gpus=1, gpu=name)] == ["h200-141g", "b200"]


def test_the_largest_model_needs_more_machines(capsys):
    assert main(["fit", "llava.finetune", "size=13b", "--gpus", "2", "--gpu", "rtx-4090"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "does not fit on 2 x rtx-4090: the nearest layout needs" in err and "of 23.6" in err
    assert "take larger ones, or more of them: --gpus 16" in err


def test_other_settings_stay(capsys, monkeypatch, tmp_path):
    """What was asked for is in the pasted command, but not twice; a setting that no layout uses is taken back."""
    monkeypatch.chdir(tmp_path)
    words = ["size=13b", "data.micro_batch_size=3", "name=it's", "parallel.pipeline_model_parallel_size=2"]
    words += ["parallel.num_layers_in_first_pipeline_stage=18"]
    assert main(["fit", "llava.finetune", *words, "--gpus", "16", "--gpu", "h100-80g"]) == 0
    pasted = shlex.split(
        capsys.readouterr().out.partition(":\n")[2].rpartition("starts nothing):\n")[2].replace("\\\n", " ")
    )
    keys = [word.partition("=")[0] for word in pasted[2:]]
    assert len(keys) == len(set(keys)) and "name=it's" in pasted and "size=13b" in pasted
    assert "parallel.num_layers_in_first_pipeline_stage=none" in pasted and "trainer.num_nodes=2" in pasted


def test_a_layout_that_needs_no_change():
    recipe = llava.finetune()
    for path, value in fit(recipe, gpus=8, gpu="a100-80g")[0].overrides.items():
        set_field(recipe, path, str(value).lower())
    assert fit(recipe, gpus=8, gpu="a100-80g")[0].overrides == {}


WRONG = [
    (["fit", "llava.finetune"], ["--gpus"]),
    (["fit", "--gpus", "8"], ["RECIPE"]),
    (["fit", "llava.fintune", "--gpus", "8"], ["llava.finetune"]),
    (["fit", "llava.finetune", "--gpus", "0"], ["--gpus 0: expected at least 1"]),
    (["fit", "llava.finetune", "--gpus", "8", "--limit", "0"], ["--limit 0"]),
    (["fit", "llava.finetune", "--gpus", "12"], ["12 GPUs are not whole machines of 8: take 8 or 16"]),
    (["fit", "llava.finetune", "--gpus", "8", "--gpu", "a100-80"], ["did you mean a100-80g"]),
    (["fit", "llava.finetune", "--gpus", "8", "--gpu", ""], ["--gpu : expected one of a100-40g"]),
    (["fit", "llava.finetune", "--gpus", "3"], ["cannot be divided over 3 x h100-80g", "data.global_batch_size=126"]),
    (["fit", "llava.finetune", "--gpus", "8", "trainer.accelerator=cpu"], ["trains on no GPU"]),
    (["fit", "llava.finetune", "--gpus", "8", "optim.lr=fast"], ["optim.lr"]),
    (["fit", "llava.finetune", "--gpus", "8", "precision.fp8=hybrid", "--gpu", "a100-80g"], ["precision.fp8"]),
]


@pytest.mark.parametrize(("words", "parts"), WRONG)
def test_what_cannot_be_searched(words, parts, capsys):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert all(part in err for part in parts), err


def test_no_layout_at_all_is_an_error_in_python():
    with pytest.raises(RecipeError, match=r"data\.global_batch_size"):
        fit(llava.finetune(), gpus=3)
    assert fit(build(llava.finetune("13b")), gpus=1, gpu="rtx-4090") == []


def pasted_command(out):
    """Return the words of the command at the end of what `fit` prints."""
    return shlex.split(out.rpartition("to be pasted")[2].partition(":\n")[2].replace("\\\n", " "))


@pytest.fixture
def planted_run(tmp_path, monkeypatch):
    """A folder with a run called `mine`, of a recipe that takes several GPUs."""
    monkeypatch.chdir(tmp_path)
    job = executors.plan_job(llava.finetune(), name="mine", gpu="h100-80g")
    job.run_dir.mkdir(parents=True)
    (job.run_dir / "job.json").write_text(job.to_json())
    (job.run_dir / "recipe.yaml").write_text(job.recipe_yaml)
    return job.run_dir


def test_a_run_is_started_anew(planted_run, capsys):
    assert main(["fit", "mine", "optim.lr=1e-4", "--gpus", "4", "--gpu", "h100-80g"]) == 0
    assert pasted_command(capsys.readouterr().out)[:4] == ["nemo-run", "rerun", "mine", "optim.lr=1e-4"]
    elsewhere = ["--runs-dir", str(planted_run.parent)]
    assert main(["fit", "mine", "--gpus", "4", "--gpu", "h100-80g", *elsewhere]) == 0
    assert pasted_command(capsys.readouterr().out)[:5] == ["nemo-run", "rerun", "mine", *elsewhere]


def test_a_run_on_another_executor(planted_run, capsys):
    """A rerun keeps its executor: on another one the recipe of the run is started."""
    words = ["mine", "--executor", "slurm", "executor.gpu_model=h200", "executor.partition=fast"]
    assert main(["fit", *words, "--gpus", "16"]) == 0
    out = capsys.readouterr().out
    assert "mine on 16 x h200-141g" in out
    pasted = pasted_command(out)
    assert pasted[:4] == ["nemo-run", str(planted_run / "recipe.yaml"), "--executor", "slurm"]
    assert pasted[4:6] == ["executor.gpu_model=h200", "executor.partition=fast"]


def test_the_gpu_of_a_profile_goes_before_what_its_place_tells(capsys):
    words = ["--executor", "slurm", "executor.gpu_model=h200", "executor.gpu=a100-40g"]
    assert main(["fit", "llava.finetune", "--gpus", "16", *words]) == 0
    assert "16 x a100-40g" in capsys.readouterr().out


def test_an_executor_of_one_machine(capsys):
    assert main(["fit", "llava.finetune", "--gpus", "16", "--gpu", "h100-80g", "--executor", "local"]) == 2
    assert "runs on one machine" in capsys.readouterr().err
    assert main(["fit", "llava.finetune", "--gpus", "8", "executor.partition=fast"]) == 2
    assert "goes with --executor NAME" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "gpus"), [(["llava.finetune"], 8), (["llava.finetune", "size=13b", "trainer.devices=4"], 16)]
)
def test_a_memory_error_names_the_command_that_helps(words, gpus, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--gpu", "rtx-4090", "--dry-run"]) == 2
    out, err = capsys.readouterr()
    (line,) = [line for line in err.splitlines() if "nemo-run fit" in line]
    command = shlex.split(line.partition("nemo-run ")[2].partition(" lists layouts that fit")[0])
    assert command == ["fit", *words, "--gpus", str(gpus), "--gpu", "rtx-4090"]
    assert line.endswith("fit on 16 of them" if gpus == 16 else "lists layouts that fit") and "nemo-run fit" in out
    assert main(command) == 0
    assert main([*command[:-4], "--gpus", str(gpus // 2), "--gpu", "rtx-4090"]) == 2
    assert f"--gpus {gpus}" in capsys.readouterr().err


SETTINGS = {
    ("executor.gpu=rtx-4090",): [],
    ("executor.gpu=rtx-4090", "--runs-dir", "elsewhere"): ["--runs-dir", "elsewhere"],
    ("executor.gpu_model=rtx-4090", "--executor", "slurm"): ["executor.gpu_model=rtx-4090", "--executor", "slurm"],
}
"""What a launch is given, and what of it the command that lists layouts needs."""


@pytest.mark.parametrize("given", SETTINGS, ids=" ".join)
def test_the_command_that_helps_works_whatever_the_launch_was_given(given, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["llava.finetune", *given, "--gpu", "rtx-4090", "--dry-run"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "nemo-run fit" in line]
    command = shlex.split(line.partition("nemo-run ")[2].partition(" lists layouts that fit")[0])
    assert command == ["fit", "llava.finetune", *SETTINGS[given], "--gpus", "8", "--gpu", "rtx-4090"]
    assert main(command) == 0
    pasted = pasted_command(capsys.readouterr().out)
    assert all(word in pasted for word in SETTINGS[given])


@pytest.mark.parametrize(
    ("executor", "gpu"), [(None, "a100"), (executors.SlurmExecutor(gpu_model="a100"), None)], ids=["--gpu", "slurm"]
)
def test_it_asks_for_the_card_that_the_warning_speaks_of(executor, gpu):
    for fields, told, card in (
        ({}, "the smaller a100-40g has 39.4", "a100-40g"),
        ({**NO_RECOMPUTE, "data.micro_batch_size": 16}, "a100-80g has 79.1", "a100-80g"),
    ):
        recipe = with_values(build(llava.finetune()), fields)
        planned = with_fit_command(plan(recipe, executor, gpu=gpu), ["llava.finetune"])
        (line,) = [finding.line() for finding in planned.findings if finding.code == "memory"]
        assert told in line and f"--gpus 8 --gpu {card} lists layouts that fit" in line


def test_a_refused_launch_names_it_too(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("executors.local.local_gpu_type", lambda: "a100-40g")
    assert main(["llava.finetune", "data.micro_batch_size=16"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "nemo-run fit llava.finetune data.micro_batch_size=16 --gpus 8 --gpu a100-40g lists layouts that fit" in err
    assert not (tmp_path / "runs").exists()


def test_no_number_of_cards_holds_everything():
    recipe = build(llava.finetune("13b"))
    assert fewest_gpus(recipe, dataclasses.replace(GPUS["rtx-4090"], memory_gib=2.0), at_least=8) is None


def test_the_machine_that_is_typed_counts(capsys):
    words = ["fit", "llava.finetune", "trainer.num_nodes=4", "trainer.devices=4", "--gpus=16", "--gpu=a100-80g"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "trainer.devices=4" in shown and "trainer.devices=8" not in shown
    assert main([*words, "--gpus-per-node=8"]) == 0
    assert "trainer.devices=8" in capsys.readouterr().out
