"""One changed bit in any file of a checkpoint is seen, and what is offered instead works."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiddle as fdl
import pytest
import torch

import executors
from neva_recipes.cli.main import main
from neva_recipes.config import CheckpointError, Recipe, RunError
from neva_recipes.plan.origins.checkpoints import find_checkpoint
from neva_recipes.storage.checkpoints import require_files, what_is_wrong
from neva_recipes.storage.exports import exported_checkpoint
from tests.training._results import losses, tensors
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]

MakeRecipe = Callable[..., fdl.Config[Recipe]]
LAST = "checkpoints/step-00000003"
SETTINGS = {
    "trainer__max_steps": 3,
    "trainer__ema_decay": 0.9,
    "checkpoint__every_n_train_steps": 1,
    "checkpoint__save_top_k": -1,
}


def flip_bit(path: Path, place: float = 0.5) -> None:
    """Change one bit of a file, at a part of its length."""
    with path.open("r+b") as file:
        offset = int(path.stat().st_size * place)
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 4]))


@pytest.fixture(scope="module")
def finished(make_recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory) -> executors.Run:
    """A run of three steps with a checkpoint after each."""
    recipe = make_recipe("pretrain", **SETTINGS)
    run = executors.run(recipe, runs_dir=tmp_path_factory.mktemp("runs"), name="whole", detach=True)
    assert run.wait() == 0, "\n".join(run.logs())
    return run


@pytest.fixture
def run(finished: executors.Run, tmp_path: Path) -> executors.Run:
    """A copy of the run."""
    shutil.copytree(finished.path, tmp_path / finished.name)
    return executors.Run(tmp_path / finished.name)


def test_a_bit_of_any_file_is_seen(finished: executors.Run, tmp_path: Path) -> None:
    checkpoint = tmp_path / "step-00000003"
    names = sorted(path.name for path in (finished.path / LAST).iterdir())
    assert {".metadata", "checkpoint.json", "common.pt", "metadata.json", "recipe.yaml"} < set(names)
    for name in names:
        for place in (0.0, 0.1, 0.5, 0.9, 0.999999):
            shutil.rmtree(checkpoint, ignore_errors=True)
            shutil.copytree(finished.path / LAST, checkpoint)
            assert what_is_wrong(checkpoint, with_shards=True) is None
            flip_bit(checkpoint / name, place)
            problem = what_is_wrong(checkpoint, with_shards=True)
            assert problem is not None and str(checkpoint / name) in problem, (name, place)
            if not name.endswith(".distcp"):  # before anything of it is used
                with pytest.raises(CheckpointError, match=name):
                    require_files(checkpoint)
                with pytest.raises(CheckpointError, match=name):
                    find_checkpoint(checkpoint)


def test_a_damaged_newest_checkpoint_stops_a_resume_with_a_command_that_works(
    run: executors.Run, finished: executors.Run, capfd: pytest.CaptureFixture[str]
) -> None:
    shard = max((run.path / LAST).glob("*.distcp"), key=lambda path: path.stat().st_size)
    flip_bit(shard, 0.7)
    flip_bit(run.path / "checkpoints" / "step-00000002" / "common.pt")
    assert main(["verify", str(run.path)]) == 2
    out, err = capfd.readouterr()
    said = [line.replace(",", ":").partition(":")[0] for line in out.splitlines()]
    assert said == ["step-00000001  whole", "step-00000002  damaged", "step-00000003  damaged"]
    assert err.count("\n") == 1 and "2 are damaged" in err
    kept = {name: (run.path / name).read_bytes() for name in ("recipe.yaml", "plan.json", "job.json", "launch.sh")}
    assert main(["resume", str(run.path), "trainer.max_steps=4"]) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: run ")]
    # The worker has found it, when all was written: the run is what it was, and says what became of the attempt.
    assert {name: (run.path / name).read_bytes() for name in kept} == kept
    # The supervisor removes the backup once the state is written, and the command ends with the state.
    wait_for(lambda: not list(run.path.glob(".before*")))
    assert not list(run.path.glob("recipe.*.yaml"))
    status = run.status()
    assert (status.state, status.exit_code, status.attempt) == ("succeeded", 2, 2)
    assert status.reason is not None and f"not resumed: {shard}: is damaged" in status.reason
    assert line.endswith("it is as it was: succeeded")
    command = f"nemo-run resume {shlex.quote(str(run.path))} --from step-1"
    assert f"{shard}: is damaged" in line and f"the next best is step-00000001: {command}, or " in line

    assert main(shlex.split(command)[1:]) == 0
    said = capfd.readouterr().err
    for name in ("step-00000002", "step-00000003"):
        assert f"set aside: {name} is {run.path / 'checkpoints' / f'aside-{name}'} now" in said
    assert sorted(path.name for path in (run.path / "checkpoints").iterdir()) == [
        "aside-step-00000002",
        "aside-step-00000003",
        "step-00000001",
        "step-00000002",
        "step-00000003",
    ]
    ours, theirs = tensors(run.path / LAST), tensors(finished.path / LAST)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
    assert losses(run.path) == losses(finished.path)
    kept = run.path / "metrics" / "aside-step-00000003.csv"
    assert kept.read_text() == (finished.path / "metrics" / "metrics.csv").read_text()


def test_parts_and_whole_models_from_a_damaged_run(
    run: executors.Run, make_recipe: MakeRecipe, start_worker: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for shard in (run.path / LAST).glob("*.distcp"):
        flip_bit(shard, 0.3)
    other = run.path / "checkpoints" / "step-00000002"
    worker = start_worker(make_recipe(model__projector__from_pretrained=run.path), tmp_path / "two")
    assert worker.wait() == 2
    assert "is damaged" in worker.log() and f"{other} where a checkpoint is asked for" in worker.log()
    assert main(["export", str(run.path), str(tmp_path / "exported")]) == 2
    assert "is damaged" in capfd.readouterr().err and not (tmp_path / "exported").exists()
    assert main(["export", str(other), str(tmp_path / "exported")]) == 0
    assert main(["verify", str(tmp_path / "exported")]) == 0
    assert exported_checkpoint(tmp_path / "exported") == other
    flip_bit(tmp_path / "exported" / "model.safetensors", 0.9)
    capfd.readouterr()
    assert main(["verify", str(tmp_path / "exported")]) == 2
    assert "model.safetensors: is damaged" in capfd.readouterr().err
    worker = start_worker(make_recipe(model__projector__from_pretrained=tmp_path / "exported"), tmp_path / "three")
    assert worker.wait() == 2
    assert "model.safetensors: is damaged" in worker.log()


def test_a_checkpoint_of_an_older_version(run: executors.Run, capfd: pytest.CaptureFixture[str]) -> None:
    source = run.path / LAST / "checkpoint.json"
    record = json.loads(source.read_text())
    del record["digest"], record["digests"]
    source.write_text(json.dumps(record, indent=2))
    require_files(run.path / LAST)
    assert main(["verify", str(run.path / LAST)]) == 0
    assert "without digests" in capfd.readouterr().out
    assert main(["resume", str(run.path)]) == 0


def test_from_a_checkpoint_that_is_not_there(run: executors.Run) -> None:
    before = sorted(run.path.rglob("*"))
    with pytest.raises(RunError, match="has no checkpoint 'step-7': expected one of step-00000001, step-00000002"):
        run.resume(go_on_from="step-7")
    flip_bit(run.path / "checkpoints" / "step-00000002" / "recipe.yaml")
    with pytest.raises(RunError, match=r"recipe\.yaml: is damaged.*the next best is step-00000001"):
        run.resume(go_on_from="2")
    assert sorted(run.path.rglob("*")) == before
