"""The plan as JSON: what another program may rely on."""

import json

from neva_recipes import gpt, llava
from neva_recipes.plan import layout_of, plan
from neva_recipes.plan.serialization import plan_to_json, plan_to_plain


def test_the_documented_keys():
    """docs/inspection.md promises these; keys may be added, none may go without a new schema."""
    document = json.loads(plan_to_json(plan(llava.finetune(), gpu="h100-80g")))
    assert (document["schema"], document["recipe"]) == (1, "llava.finetune")
    assert set(document) >= {"gpu", "gpu_assumed", "findings", "parameters", "lengths", "layout", "memory", "cost"}
    (finding,) = (finding for finding in document["findings"] if finding["about"] == "files")
    assert set(finding) >= {"code", "severity", "message", "fields", "remedies", "advice", "line"}
    assert document["gpu_assumed"] is False and document["gpu"]["name"] == "h100-80g"
    assert [part["part"] for part in document["parameters"]] == ["language", "vision", "projector"]
    assert document["parameters"][0]["total"] == 6_738_415_616
    assert set(document["lengths"]) >= {"tokens", "padded", "images", "samples", "truncated", "source", "measured"}
    assert set(document["cost"]) >= {"sample_tflop", "step_tflop", "recompute_tflop", "padding", "steps", "utilisation"}
    assert set(document["cost"]) >= {"step_seconds", "hours", "gpu_hours"}
    (stage,) = document["memory"]
    assert stage["total"] == sum(stage["bytes"].values()) > 2**30


def test_layers_and_derived_sizes():
    recipe = llava.finetune()
    recipe.parallel.pipeline_model_parallel_size, recipe.parallel.virtual_pipeline_model_parallel_size = 2, 2
    recipe.trainer.num_nodes, recipe.data.micro_batch_size = 2, 2
    found = plan(recipe)
    layout = plan_to_plain(found)["layout"]
    assert [stage["chunks"] for stage in layout["stages"]] == [[[0, 8], [16, 24]], [[8, 16], [24, 32]]]
    assert [stage["num_layers"] for stage in layout["stages"]] == [16, 16]
    assert (layout["world_size"], layout["model_parallel_size"], layout["data_parallel_size"]) == (16, 2, 8)
    # (p - 1) / (v m + p - 1), arXiv 2104.04473
    assert layout["bubble"] == 1 / (2 * 8 + 1) == layout_of(found.recipe).bubble


def test_without_a_layout():
    recipe = gpt.pretrain("tiny")
    recipe.parallel.tensor_model_parallel_size = 3
    document = plan_to_plain(plan(recipe))
    assert (document["layout"], document["memory"], document["cost"]) == (None, [], None)
    (finding,) = (finding for finding in document["findings"] if finding["code"] == "tensor-parallel-heads")
    assert finding["fields"]["parallel.tensor_model_parallel_size"] == 3
    assert all(isinstance(remedy, dict) for remedy in finding["remedies"]) and finding["remedies"]
