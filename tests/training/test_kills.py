"""Killed before any call that changes its folder, a run goes on to the same bits and leaves nothing over."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import fiddle as fdl
import pytest
import torch

from neva_recipes import gpt
from neva_recipes.config import Recipe, recipe_to_yaml, set_field
from neva_recipes.storage.checkpoints import record_text
from tests.training._results import losses, tensors

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]

STEPS = 2
LAST = f"checkpoints/step-{STEPS:08d}"
SETTINGS = {
    "data.global_batch_size": 4,
    "data.micro_batch_size": 4,
    "data.num_workers": 0,
    "data.sequence_length": 16,
    "model.language.vocab_size": 640,
    "model.language.num_layers": 1,
    "model.language.hidden_size": 16,
    "model.language.ffn_hidden_size": 16,
    "model.language.num_attention_heads": 2,
    "model.language.num_query_groups": 2,
    "trainer.ema_decay": 0.9,
    "trainer.max_steps": STEPS,
    "trainer.log_every_n_steps": 1,
    "checkpoint.every_n_train_steps": 1,
    "checkpoint.save_top_k": 1,
    "optim.warmup_steps": 0,
}


@pytest.fixture(scope="module")
def recipe(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> fdl.Config[Recipe]:
    """A text model of a few thousand weights that saves after each step and keeps the newest."""
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text("".join((digits / "text.txt").read_text().splitlines(keepends=True)[:200]))
    made = gpt.pretrain(size="tiny")
    for name, value in {**SETTINGS, "data.data_path": text, "data.tokenizer": digits / "tokenizer"}.items():
        set_field(made, name, str(value))
    return made


@pytest.fixture(scope="module")
def undisturbed(recipe: fdl.Config[Recipe], train: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(recipe, tmp_path_factory.mktemp("undisturbed") / "run")


@pytest.fixture(scope="module")
def interrupted(undisturbed: Path, recipe: fdl.Config[Recipe], train: Any, tmp_path_factory: Any) -> Path:
    """A run of one step that has to go on, in which kills have left something at every place."""
    folder = tmp_path_factory.mktemp("interrupted")
    set_field(recipe, "trainer.max_steps", "1")
    one = train(recipe, folder / "run")
    set_field(recipe, "trainer.max_steps", str(STEPS))
    (one / "recipe.yaml").write_text(recipe_to_yaml(recipe))
    return plant_leftovers(one)


def plant_leftovers(run: Path) -> Path:
    """Leave in a run what kills of writers and of removals leave."""
    newest = max((run / "checkpoints").glob("step-*"))
    for name in (".removed-step-00000000", ".incomplete-step-00000009"):
        shutil.copytree(newest, run / "checkpoints" / name)
        (run / "checkpoints" / name / "checkpoint.json").unlink()
    too_many = run / "checkpoints" / "step-00000000"
    shutil.copytree(newest, too_many)
    information = json.loads((newest / "checkpoint.json").read_text())
    del information["digest"]
    (too_many / "checkpoint.json").write_text(record_text({**information, "step": 0}))
    (run / "metrics" / "metrics.incomplete").write_text("step,")
    (run / "data_cache" / "0123456789abcdef.4.unfinished").write_bytes(b"\0" * 100)
    return run


def kill_at_every_call(folder: Path, *orders: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Return what kill_points.py says of each order."""
    for number, order in enumerate(orders):
        order["folder"] = str(folder / str(number))
        (folder / str(number)).mkdir()
    (folder / "orders.json").write_text(json.dumps(orders))
    command = [sys.executable, "-m", "tests.kill_points", folder / "orders.json", folder / "found.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "found.json").read_text())


def files_of(run: Path) -> set[str]:
    """Return the files of a run directory; TensorBoard's and the logs of the tests aside."""
    names = (path.relative_to(run).as_posix() for path in run.rglob("*"))
    return {name for name in names if "events.out.tfevents" not in name and not name.startswith("rank-")}


def require_same(run: Path, expected: Path) -> None:
    assert files_of(run) == files_of(expected)
    ours, theirs = tensors(run / LAST), tensors(expected / LAST)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
    for column in ("step", "reduced_train_loss", "lr", "grad_norm"):
        assert losses(run, column) == losses(expected, column)


def test_killed_at_every_call(undisturbed: Path, interrupted: Path, tmp_path: Path) -> None:
    """A training from its start, one that goes on, and an export; the second at every other call."""
    start = tmp_path / "start"
    start.mkdir()
    shutil.copy(undisturbed / "recipe.yaml", start)
    fresh = {"action": "train", "start": str(start), "arguments": ["{}"], "every": 1}
    resumed = {**fresh, "start": str(interrupted), "every": 2}
    export = {"action": "export", "start": str(undisturbed), "arguments": ["{}", "{}/exported"], "every": 1}
    *trainings, exports = kill_at_every_call(tmp_path, fresh, resumed, export)
    for attempts, least in ((trainings[0], 40), (trainings[1], 20), (exports, 5)):
        *killed, last = attempts
        assert last["killed"] == 0 and len(killed) >= least
        for attempt in killed:
            log = Path(f"{attempt['directory']}.log").read_text()
            assert (attempt["killed"], attempt["ended"]) == (-signal.SIGKILL, 0), log
    for attempt in itertools.chain(*trainings):
        require_same(Path(attempt["directory"]), undisturbed)
    *killed, whole = (Path(attempt["directory"]) for attempt in exports)
    for directory in killed:
        assert files_of(directory) == files_of(whole)
        for path in (whole / "exported").iterdir():
            # Each names the checkpoint that it was made of.
            found, expected = (
                (run / "exported" / path.name).read_bytes().replace(os.fsencode(run), b"RUN")
                for run in (directory, whole)
            )
            assert found == expected, path.name
