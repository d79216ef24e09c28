"""A run that is still going removes the checkpoint that is being loaded."""

import json
import shutil
from pathlib import Path

import pytest

from neva_model.checkpoints import load, pretrained
from neva_model.model import ModelChunks
from neva_recipes import llava
from neva_recipes.config import CheckpointError, build


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for step in (40, 60):
        checkpoint = tmp_path / f"run/checkpoints/step-{step:08d}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "checkpoint.json").write_text(json.dumps({"step": step}))
    return tmp_path / "run"


@pytest.fixture
def removing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Loading fails as it does when the newest checkpoint is superseded meanwhile; the names of what was tried."""
    tried: list[str] = []

    def load_once(checkpoint: Path, *_: object) -> Path:
        tried.append(checkpoint.name)
        if len(tried) == 1:
            checkpoint.with_name("step-00000080").mkdir()
            shutil.rmtree(checkpoint)
            raise CheckpointError(f"{checkpoint}: cannot be loaded: [Errno 2]")
        return checkpoint

    monkeypatch.setattr(load, "_load", load_once)
    return tried


def test_of_a_run_the_next_is_taken(run: Path, removing: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert load.load_model(run) == run / "checkpoints/step-00000080"
    assert removing == ["step-00000060", "step-00000080"]
    assert "step-00000060 was removed by its run: taking the next" in capsys.readouterr().err


def test_a_checkpoint_that_was_named_is_not_replaced(run: Path, removing: list[str]) -> None:
    with pytest.raises(CheckpointError, match="Errno 2"):
        load.load_model(run / "checkpoints/step-00000060")
    assert removing == ["step-00000060"]


def test_damage_is_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(checkpoint: Path, *_: object) -> None:
        raise CheckpointError(f"{checkpoint}: is damaged")

    monkeypatch.setattr(load, "_load", refuse)
    with pytest.raises(CheckpointError, match="step-00000060: is damaged"):
        load.load_model(run)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "run",
            "was removed by its run, which goes on, while it was loaded: name a checkpoint that stays in model.lang",
        ),
        ("run/checkpoints/step-00000060", "Errno 2"),
    ],
)
def test_a_start_of_training_says_what_has_happened(
    run: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: str
) -> None:
    def load_part(chunks: ModelChunks, recipe: object, part: str, checkpoint: Path) -> str:
        shutil.rmtree(checkpoint)
        raise CheckpointError(f"{checkpoint}: cannot be loaded: [Errno 2]")

    monkeypatch.setattr(pretrained, "_load_part", load_part)
    load.initialize_single_process()
    recipe = llava.finetune("tiny")
    recipe.model.language.from_pretrained = str(run.parent / source)
    with pytest.raises(CheckpointError, match=f"step-00000060: .*{said}"):
        pretrained.load_initial_weights(ModelChunks([]), build(recipe))
