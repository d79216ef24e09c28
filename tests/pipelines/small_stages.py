"""Pipelines whose stages are small scripts in place of the worker and the tools: everything else is the real thing."""

import os
import textwrap

import pytest

import executors
from neva_recipes.config import config
from tests.pipelines.recipes import make_recipe

# Stands where neva_model stands. What a stage has been told by files in the folder of runs decides how it ends; each
# start is noted there.
_WORKER = """
    import os, shutil, signal, sys, time
    from pathlib import Path
    run = Path(sys.argv[-1])
    runs = run.parent.parent.parent
    with (runs / "starts").open("a") as file:
        file.write(run.name + "\\n")
    print(f"{run.name} works")
    while (runs / f"hold {run.name}").exists() and signal.SIGUSR2 not in signal.sigpending():
        time.sleep(0.02)
    if (runs / f"stop {run.name}").exists() or signal.SIGUSR2 in signal.sigpending():
        (runs / f"stop {run.name}").unlink(missing_ok=True)
        checkpoint = run / "checkpoints" / f"step-{time.time_ns()}"
        checkpoint.mkdir(parents=True)
        shutil.copy(run / "recipe.yaml", checkpoint)
        (checkpoint / "checkpoint.json").write_text('{"step": 1, "consumed_samples": 1, "metrics": {}}')
        sys.exit(75)  # stopped, with its work saved
    if (runs / f"fail {run.name}").exists():
        print(f"{run.name} fails")
        sys.exit(3)
    (run / "metrics").mkdir(exist_ok=True)
    (run / "metrics" / "metrics.csv").write_text("step,reduced_train_loss,val_loss\\n1,2.5,\\n2,1.25,\\n2,,0.75\\n")
    (run / "result").write_text(os.environ.get("OMP_NUM_THREADS", ""))
"""


@pytest.fixture
def runs_dir(tmp_path, monkeypatch):
    """The folder of runs, with a worker and tools that do what files in the folder say."""
    package = tmp_path / "instead" / "neva_model"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    for name in ("worker", "tool"):
        (package / f"{name}.py").write_text(textwrap.dedent(_WORKER))
    monkeypatch.setenv("PYTHONPATH", str(package.parent), prepend=os.pathsep)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def starts(runs_dir):
    """Return the names of the stages that were started, in order."""
    return lambda: (runs_dir / "starts").read_text().split() if (runs_dir / "starts").exists() else []


@pytest.fixture
def four():
    """`a >> [b, c] >> d`: two recipes that share a predecessor, and a tool that uses one of them."""
    a, b, c = (executors.Stage(name, make_recipe(name)) for name in "abc")
    d = executors.Stage("d", config(executors.Export, model=b.output))
    return executors.Pipeline("four", a >> [b, c] >> d)
