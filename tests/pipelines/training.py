"""llava.pipeline with tiny sizes by the real command, and what it has to leave behind wherever it runs."""

import functools
import json

import pytest
from PIL import Image

from executors import find_run
from executors.pipelines.directory import stage_statuses
from neva_recipes.run_directory.state import read_state
from tests.end_to_end.world import make_world, nemo_run
from tests.training._results import tensors

__all__ = [
    "STAGES",
    "Kept",
    "attempts",
    "check_results",
    "local_pipeline",
    "local_sweep",
    "results",
    "swept",
    "write_inputs",
]

STAGES = ("pretrain", "finetune", "export", "evaluate")
BROKEN = "broken.json"
PATIENCE = 600.0
"""Seconds for several stages or points on a machine that has other things to do."""


def write_inputs(world):
    """Write what the stages train on, and return the overrides that name it; one picture for stage 2 is broken.

    That is seen only when they are decoded: everything else would be refused before anything starts.
    """
    picture = world.images / "broken picture.png"
    Image.new("RGB", (64, 64), (9, 9, 9)).save(picture)
    picture.write_bytes(picture.read_bytes()[:70])
    captions = [
        {
            "image": sample["image"],
            "conversations": [{"from": "human", "value": "<image>"}, sample["conversations"][1]],
        }
        for sample in world.samples
        if "image" in sample
    ]
    broken = next(n for n, sample in enumerate(world.samples) if n >= 8 and "image" in sample)
    world.write(
        BROKEN,
        [sample | ({"image": picture.name} if n == broken else {}) for n, sample in enumerate(world.samples)],
    )
    shared = [word for word in world.tiny() if not word.startswith("data.data_path=")]
    return [
        *shared,
        # Stage 2 is laid out in another way than stage 1.
        "finetune.parallel.tensor_model_parallel_size=2",
        f"pretrain.data.data_path={world.write('captions.json', captions)}",
        f"finetune.data.data_path={BROKEN}",
        f"evaluate.data={world.data.name}",
        f"evaluate.image_folder={world.images.name}",
    ]


class Kept:
    """What a stage that is done has left, which going on with the others must not touch."""

    def __init__(self, run, name):
        self._stage = run.path / "stages" / name
        self._before = self._look()
        assert read_state(self._stage).state == "succeeded"
        assert read_state(self._stage).attempt == 1
        assert [path for path in self._before if path.match("checkpoints/*/*")]

    def _look(self):
        return {path: path.stat().st_mtime_ns for path in self._stage.rglob("*") if path.is_file()}

    def check(self):
        assert self._look() == self._before


def attempts(run):
    """Return how often each stage was started."""
    return {name: read_state(run.path / "stages" / name).attempt for name in STAGES}


def results(run):
    """Return what a finished pipeline has made: weights, exported files, and the report without its time and paths."""
    stages = run.path / "stages"
    exported = stages / "export" / "exported"
    report = json.loads((stages / "finetune" / "evaluation.json").read_text())
    for name in ("seconds", "model", "data", "image_folder"):
        del report[name]
    del report["training"]["image_folder"]
    files = {str(path.relative_to(exported)): path.read_bytes() for path in exported.rglob("*") if path.is_file()}
    digests = json.loads(files["digests.json"])
    assert digests.pop("checkpoint") == str(find_run(stages / "finetune").newest_checkpoint())
    return (
        tensors(find_run(stages / "finetune").newest_checkpoint()),
        {**files, "digests.json": digests},
        report,
        (stages / "evaluate" / "predictions.jsonl").read_text(),
    )


def check_results(run, world):
    """Check what a finished pipeline has made by what it was given."""
    _, exported, report, answers = results(run)
    assert json.loads(exported["config.json"])["architectures"] == ["LlavaForConditionalGeneration"]
    count = sum(len(sample["conversations"]) // 2 for sample in world.samples)
    assert report["questions"] == count == len(answers.splitlines())
    log = "\n".join(find_run(run.path / "stages" / "finetune").logs())
    assert f"{run.path}/stages/pretrain/checkpoints/step-00000003" in log
    assert f"training {run.record()['name']}/finetune (llava.finetune): " in log
    assert [(stage.name, stage.state) for stage in stage_statuses(run.path)] == [(name, "succeeded") for name in STAGES]


def swept(world, name, *place):
    """Sweep over three learning rates of which one is too high, mend that point, and return the rows of the table."""
    words = [*world.tiny(), "optim.lr=1e-3,1e30,4e-5", "--sweep", "--name", name, *place]
    printed = nemo_run("llava.finetune", *words, cwd=world.folder, code=2, patience=PATIENCE).stdout
    failed, reason = _points(world, name)
    assert reason.startswith(
        "2: training has diverged: the loss is nan in step 3; nothing is saved of it. Lower optim.lr"
    )
    assert [row[:3] for row in failed] == [
        ["1", "1e-3", "succeeded"],
        ["2", "1e30", "failed"],
        ["3", "4e-5", "succeeded"],
    ]
    assert printed.splitlines()[-1] == reason
    assert any("training has diverged" in line for line in find_run(f"{name}/2", world.folder / "runs").logs())
    nemo_run("resume", f"{name}/2", "optim.lr=2e-5", cwd=world.folder, patience=PATIENCE)
    nemo_run("resume", name, cwd=world.folder, patience=PATIENCE)
    run = find_run(name, world.folder / "runs")
    assert [read_state(run.path / "stages" / number).attempt for number in "123"] == [1, 2, 1]
    rows, reason = _points(world, name)
    assert reason is None
    assert [row[1:3] for row in rows] == [["1e-3", "succeeded"], ["2e-05", "succeeded"], ["4e-5", "succeeded"]]
    assert rows[0] == failed[0] and rows[2] == failed[2]
    return rows


def _points(world, name):
    """Return the cells of each point, without its time, and the line below the table if there is one."""
    _, *lines = nemo_run("status", name, cwd=world.folder).stdout.partition("POINT ")[2].splitlines()
    return [line.split()[:-1] for line in lines[:3]], next(iter(lines[3:]), None)


@functools.cache
def _trained(folder):
    world = make_world(folder)
    words = write_inputs(world)
    nemo_run(
        "llava.pipeline", *words, "trainer.devices=2", "--name", "whole", cwd=world.folder, code=2, patience=PATIENCE
    )
    run = find_run("whole", world.folder / "runs")
    reason = run.status().reason
    assert (
        reason.startswith("finetune failed: ") and BROKEN in reason and reason.endswith("; not run: export, evaluate")
    )
    first = Kept(run, "pretrain")
    world.write(BROKEN, world.samples)
    printed = nemo_run("resume", "whole", cwd=world.folder, patience=PATIENCE).stdout
    first.check()
    assert attempts(run) == {"pretrain": 1, "finetune": 2, "export": 1, "evaluate": 1}
    return world, run, printed


@pytest.fixture(scope="session")
def local_pipeline(tmp_path_factory):
    """The world and the run of a pipeline on this machine that a broken record has stopped, and what resuming printed.

    It is made once, whichever modules ask for it.
    """
    return _trained(tmp_path_factory.getbasetemp() / "local pipeline")


@functools.cache
def _swept(folder):
    world = make_world(folder)
    return world, swept(world, "rates", "--parallel", "2")


@pytest.fixture(scope="session")
def local_sweep(tmp_path_factory):
    """The world and the rows of a sweep on this machine, two points at once."""
    return _swept(tmp_path_factory.getbasetemp() / "local sweep")
