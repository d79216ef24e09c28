"""What stage 2 of a pipeline takes of stage 1, and what is told where that does not fit together."""

import json
from types import SimpleNamespace

import pytest

import executors
from executors.pipelines.resume import stage_plans
from neva_recipes import llava
from neva_recipes.config import recipe_to_yaml, set_field

PARTS = [f"model.{part}.from_pretrained" for part in ("language", "vision", "projector")]


def planned(pipeline, tmp_path, **fields):
    """Return the plan of a pipeline, fields of its stage 2 set; the files of its data are not there."""
    for path, value in fields.items():
        set_field(pipeline.stage("finetune").work, path.replace("__", "."), value)
    return executors.plan_pipeline(pipeline, runs_dir=tmp_path)


def by_hand(*parts):
    """Return both stages at their tiny size, some parts of the second one taken from the first."""
    pretrain = executors.Stage("pretrain", llava.pretrain("tiny"))
    recipe = llava.finetune("tiny")
    for part in parts:
        getattr(recipe.model, part).from_pretrained = pretrain.output
    return executors.Pipeline("by-hand", pretrain >> executors.Stage("finetune", recipe))


@pytest.mark.parametrize(("size", "handed"), [("tiny", PARTS), ("7b", PARTS[2:]), ("13b", PARTS[2:])])
def test_stage_2_takes_what_only_stage_1_has(size, handed):
    inputs = llava.pipeline(size).stage("finetune").inputs()
    assert [(path, output.stage) for path, output in inputs] == [(path, "pretrain") for path in handed]


@pytest.mark.parametrize("pipeline", [llava.pipeline("tiny"), by_hand("language", "vision", "projector")])
def test_what_comes_from_one_run_fits_whatever_the_seed(pipeline, tmp_path):
    warnings = planned(pipeline, tmp_path, trainer__seed="7").warnings
    assert not [line for line in warnings if line.startswith("finetune: ")]


def test_a_projector_alone_fits_beside_what_one_seed_draws(tmp_path):
    assert not [line for line in planned(by_hand("projector"), tmp_path).warnings if line.startswith("finetune: ")]
    lines = planned(by_hand("projector", "language"), tmp_path, trainer__seed="7").warnings
    (line,) = [line for line in lines if line.startswith("finetune: ")]
    assert line.partition(": the projector ")[2] == (
        "was trained beside another random vision tower (trainer.seed=1234); take model.vision.from_pretrained from "
        "the same stage"
    )


def test_weights_of_another_shape_stop_a_launch_before_they_are_made(tmp_path):
    problems = planned(llava.pipeline("tiny"), tmp_path, model__vision__num_layers="3").problems
    (line,) = [line for line in problems if "model.vision.from_pretrained" in line]
    assert line.startswith("finetune: ")
    assert line.endswith(
        "model.vision.num_layers=3: was trained with num_layers=4; set finetune.model.vision.num_layers=4"
    )


def test_a_stage_that_is_to_go_on_first_is_not_called_unfinished(tmp_path):
    first, second = llava.pretrain("tiny"), llava.finetune("tiny")
    stages = []
    for name, recipe in (("pretrain", first), ("finetune", second)):
        path = tmp_path / name
        path.mkdir()
        run = SimpleNamespace(path=path, executor=executors.LocalExecutor, newest_checkpoint=lambda: None)
        stages.append(SimpleNamespace(name=name, run=run, older_than=None))
        for part in ("language", "vision", "projector") if recipe is second else ():
            getattr(recipe.model, part).from_pretrained = str(tmp_path / "pretrain")
        (path / "recipe.yaml").write_text(recipe_to_yaml(recipe))
    checkpoint = tmp_path / "pretrain/checkpoints/step-00000005"
    checkpoint.mkdir(parents=True)
    (checkpoint / "recipe.yaml").write_text(recipe_to_yaml(first))
    (checkpoint / "checkpoint.json").write_text(json.dumps({"step": 5, "files": {}}))
    (tmp_path / "pretrain/state.json").write_text(json.dumps({"state": "cancelled"}))

    def warned(due):
        return ["unfinished-run" in [found.code for found in plan.warnings] for _, plan in stage_plans(due, None)]

    assert warned(stages) == [False, False]
    assert warned(stages[1:]) == [True]
