"""Runs that have been trained, on paper: their directories are written by hand."""

import csv
import json
from datetime import datetime, timedelta

import pytest

from neva_recipes import llava
from neva_recipes.config import recipe_to_yaml, set_field
from neva_recipes.plan import plan
from neva_recipes.plan.serialization import plan_to_json
from neva_recipes.run_directory.state import State, write_state
from neva_recipes.storage.checkpoints import record_text

START = datetime.fromisoformat("2026-03-01T12:00:00+00:00")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return tmp_path


def write_metrics(path, rows):
    """Write metrics.csv as the worker does: a column for each name, empty where it was not logged."""
    columns = ["step", *dict.fromkeys(name for row in rows.values() for name in row)]
    (path / "metrics").mkdir(parents=True, exist_ok=True)
    with (path / "metrics" / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows({"step": step, **row} for step, row in rows.items())


def write_checkpoint(path, step, **record):
    checkpoint = path / "checkpoints" / f"step-{step:08d}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "checkpoint.json").write_text(record_text({"step": step, "metrics": {}, **record}))
    return checkpoint


@pytest.fixture
def make_run(folder):
    """A function that writes a run of 400 steps whose best checkpoint is that of step 100."""

    def make(name, lr=1e-3, shift=0.0, gpu=False):
        recipe = llava.finetune("tiny")
        set_field(recipe, "optim.lr", str(lr))
        path = folder / "runs" / name
        (path / "logs").mkdir(parents=True)
        record = {"name": name, "created": START.isoformat(), "argv": ["python"], "cwd": "/", "world_size": 1}
        record |= {"num_nodes": 1, "env": {}, "executor": {"kind": "local"}}
        (path / "job.json").write_text(json.dumps(record))
        (path / "recipe.yaml").write_text(recipe_to_yaml(recipe))
        (path / "plan.json").write_text(plan_to_json(plan(recipe)))
        times = {"started": START.isoformat(), "ended": (START + timedelta(seconds=53)).isoformat()}
        write_state(path, State(state="succeeded", exit_code=0, attempt=2, earlier_seconds=67.0, **times))
        rows = {}
        for step in range(10, 401, 10):
            rows[step] = {"reduced_train_loss": shift + 4 / step, "step_time": 0.1, "tokens_per_second": 2000.0}
            rows[step] |= {"samples_per_second": 640.0} | ({"peak_memory_gib": 1.0} if gpu else {})
            if step % 100 == 0:
                rows[step]["val_loss"] = shift + {100: 0.21, 200: 0.25, 300: 0.3, 400: 0.34}[step]
        write_metrics(path, rows)
        write_checkpoint(path, 100, validation="done", metrics={"val_loss": shift + 0.21})
        write_checkpoint(path, 400, validation="done", metrics={"val_loss": shift + 0.34})
        return path

    return make
