"""Waste that shows in the data or in the memory only."""

import json

from neva_recipes import llava, neva
from neva_recipes.config import build
from neva_recipes.plan import plan
from neva_recipes.plan.checks import with_values

TENSOR, SEQUENCE = "parallel.tensor_model_parallel_size", "parallel.sequence_parallel"


def samples(folder, lengths):
    """Write conversations without images whose answers have so many characters."""
    records = [
        {
            "id": number,
            "conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "word " * (length // 5)}],
        }
        for number, length in enumerate(lengths)
    ]
    path = folder / "train.json"
    path.write_text(json.dumps(records))
    return str(path)


def recipe_of(path, micro_batch_size):
    recipe = llava.finetune("tiny")
    recipe.data.data_path = path
    recipe.data.group_by_modality_length = False
    recipe.data.sequence_length = recipe.model.language.max_position_embeddings = 4096
    recipe.data.micro_batch_size = micro_batch_size
    return build(recipe)


def found(recipe, code, gpu="h100-80g"):
    return [finding for finding in plan(recipe, gpu=gpu).findings if finding.code == code]


def test_padding_of_samples_of_different_lengths(tmp_path):
    recipe = recipe_of(samples(tmp_path, [40, 8000] * 200), micro_batch_size=4)
    (finding,) = found(recipe, "padding")
    # A long sample is in 15 of 16 microbatches, and half of the rows are next to empty.
    share = int(finding.message.split("%")[0])
    assert 40 <= share <= 50
    assert [dict(remedy) for remedy in finding.remedies] == [
        {"data.group_by_modality_length": True},
        {"data.micro_batch_size": 1},
    ]
    for remedy in finding.remedies:
        assert found(with_values(recipe, remedy), "padding") == []


def test_no_padding_where_lengths_are_alike(tmp_path):
    assert found(recipe_of(samples(tmp_path, [2000] * 400), micro_batch_size=4), "padding") == []


def test_no_word_on_padding_without_a_file():
    recipe = llava.finetune("7b")
    recipe.data.group_by_modality_length = False
    assert found(build(recipe), "padding") == []


def test_more_tensor_parallelism_than_memory_asks_for():
    recipe = build(neva.finetune("7b"))
    (finding,) = found(recipe, "tensor-parallel-unneeded", gpu="h200-141g")
    assert [dict(remedy) for remedy in finding.remedies] == [{"parallel.tensor_model_parallel_size": 2}]
    assert found(with_values(recipe, finding.remedies[0]), "tensor-parallel-unneeded", gpu="h200-141g") == []
    assert found(recipe, "tensor-parallel-unneeded", gpu="a100-80g") == []


def test_no_word_on_tensor_parallelism_that_makes_a_step_faster():
    """128 samples over 64 GPUs: without it each of 16 replicas has so few microbatches that four stages idle."""
    recipe = llava.finetune("13b")
    recipe.trainer.num_nodes, recipe.data.micro_batch_size = 8, 2
    recipe.parallel.tensor_model_parallel_size, recipe.parallel.sequence_parallel = 2, True
    recipe.parallel.pipeline_model_parallel_size, recipe.parallel.virtual_pipeline_model_parallel_size = 4, 5
    shared, whole = build(recipe), with_values(build(recipe), {TENSOR: 1, SEQUENCE: False})
    memory = [max(stage.total for stage in plan(each, gpu="b200").memory) / 178.3 / 2**30 for each in (shared, whole)]
    assert max(memory) < 0.8
    assert plan(whole, gpu="b200").cost.step_seconds > plan(shared, gpu="b200").cost.step_seconds
    assert found(shared, "tensor-parallel-unneeded", gpu="b200") == []
    # With eight times the batch there are microbatches enough, and sharing layers is waste again.
    larger = with_values(shared, {"data.global_batch_size": 1024})
    (finding,) = found(larger, "tensor-parallel-unneeded", gpu="b200")
    mended = with_values(larger, finding.remedies[0])
    assert plan(mended, gpu="b200").cost.step_seconds < plan(larger, gpu="b200").cost.step_seconds


def test_one_gpu_is_enough_and_takes_no_sequence_parallelism():
    recipe = llava.finetune("tiny")
    recipe.trainer.devices = 2
    recipe.parallel.tensor_model_parallel_size, recipe.parallel.sequence_parallel = 2, True
    (finding,) = found(build(recipe), "tensor-parallel-unneeded")
    (remedy,) = finding.remedies
    assert dict(remedy) == {TENSOR: 1, SEQUENCE: False}
    assert found(with_values(build(recipe), remedy), "tensor-parallel-unneeded") == []
