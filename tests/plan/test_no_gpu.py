"""A model that a machine without a GPU cannot train is refused at a launch, and noted in a dry run."""

import pytest

import executors
from neva_recipes import llava
from neva_recipes.cli.main import main
from neva_recipes.config import RecipeError
from neva_recipes.plan import plan
from neva_recipes.plan.fitting.machine import CpuMachine

GIB = 2**30
WAYS_OUT = ("size=tiny", "--executor slurm, or a profile", "trainer.accelerator=cpu insists")


@pytest.fixture
def here(monkeypatch):
    """Let this machine be one without a GPU, of a size."""

    def make(memory, cores=8):
        monkeypatch.setattr(executors.LocalExecutor, "cpu_machine", lambda self: CpuMachine(memory, cores))

    make(16 * GIB)
    return make


def lines(recipe):
    found = plan(recipe, executors.LocalExecutor()).errors
    return [finding.line() for finding in found if finding.code == "no-gpu"]


def test_the_memory_of_all_ranks_and_the_time_are_told_with_the_ways_out(here):
    recipe = llava.finetune("7b")
    (line,) = lines(recipe)
    assert (
        all(way in line for way in WAYS_OUT) and "GiB of memory (there are 16)" in line and " years on 8 cores" in line
    )
    # 7.06 billion weights in 2 bytes and their gradients in 4 on each of 8 ranks, three fp32 numbers each shared by
    # them; the tower's 0.3 billion in 2 bytes.
    expected = (8 * (6.76 * (2 + 4) + 0.3 * 2) + 6.76 * 12) * 1e9 / GIB
    told = float(line.partition("would take ")[2].partition(" GiB")[0])
    assert told == pytest.approx(expected, rel=0.02)

    here(512 * GIB)
    (line,) = lines(recipe)
    assert "GiB" not in line and " years on 8 cores" in line
    recipe.trainer.max_steps = 1
    here(512 * GIB, cores=1024)  # hours
    assert lines(recipe) == []
    here(None, cores=1024)
    assert lines(recipe) == []


def test_what_fits_and_who_insists_is_let_through(here):
    assert lines(llava.finetune("tiny")) == [] and lines(llava.pretrain("tiny")) == []
    recipe = llava.finetune("7b")
    recipe.trainer.accelerator = "cpu"
    assert lines(recipe) == []
    recipe.trainer.accelerator = "auto"
    assert not [each for each in plan(recipe, executors.SlurmExecutor()).errors if each.code == "no-gpu"]


def test_who_asks_for_a_gpu_is_told_that_there_is_none(here, monkeypatch):
    """As the worker does, whatever the size of the model."""
    recipe = llava.finetune("tiny")
    recipe.trainer.accelerator = "gpu"
    (line,) = lines(recipe)
    assert line.startswith("trainer.accelerator=gpu: this machine has no GPU; take a place with GPUs")
    monkeypatch.setattr(executors.LocalExecutor, "cpu_machine", lambda self: None)
    assert lines(recipe) == []


@pytest.mark.parametrize(
    "words", [["llava.finetune"], ["llava.pipeline"], ["llava.finetune", "optim.lr=1,2", "--sweep"]]
)
def test_a_launch_is_refused_in_one_line_before_anything_else(words, here, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "this machine has no GPU" in line and list(tmp_path.iterdir()) == []


def test_a_dry_run_notes_it_and_has_the_script(here, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["llava.finetune", "--dry-run", "--script"]) == 0
    printed = capsys.readouterr()
    assert "neva_model" in printed.out
    assert main(["llava.finetune", "--dry-run"]) == 0
    assert "note: trainer.accelerator=auto: this machine has no GPU" in capsys.readouterr().err


def test_a_run_is_planned_and_not_started(here, tmp_path):
    recipe = llava.finetune("7b")
    recipe.data.data_path = recipe.data.tokenizer = __file__
    assert executors.plan_job(recipe, runs_dir=tmp_path).plan.on_cpu
    with pytest.raises(RecipeError, match="this machine has no GPU"):
        executors.run(recipe, runs_dir=tmp_path)
