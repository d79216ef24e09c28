"""Parameter counts against published totals and against what Megatron-Core and transformers build on every rank."""

import json
import os
import subprocess
import sys

import pytest

from neva_recipes import gpt, llava
from neva_recipes.config import build
from neva_recipes.plan import layout_of
from neva_recipes.plan.cost.parameters import (
    count_parameters,
    is_small,
    padding_parameters,
    stage_parameters,
    total_parameters,
)
from tests.plan.model_shapes import random_recipes, small_recipe

SEED, NUMBER = 20250, 60


# Llama-2 7B and 13B, and LLaVA-1.5's two-layer projectors; CLIP ViT-L/14-336 is published as 303,505,408 without the
# norm after its last layer, which transformers builds and nothing here runs.
@pytest.mark.parametrize(
    ("size", "language", "projector"), [("7b", 6_738_415_616, 20_979_712), ("13b", 13_015_864_320, 31_467_520)]
)
def test_published_totals(size: str, language: int, projector: int) -> None:
    parts = {part.part: part for part in count_parameters(build(llava.pretrain(size)))}
    assert parts["language"].total == language
    assert parts["projector"].total == projector
    assert parts["vision"].total - 2 * 1024 == 303_505_408
    assert {name: part.trained for name, part in parts.items()} == {"language": 0, "vision": 0, "projector": projector}


def test_text_only() -> None:
    (language,) = count_parameters(build(gpt.pretrain("7b")))
    assert (language.part, language.total, language.trained) == ("language", 6_738_415_616, 6_738_415_616)


@pytest.mark.slow
def test_every_rank_holds_what_core_builds() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.plan.core_counts", str(SEED), str(NUMBER)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    built = json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)
    compared = 0
    for recipe, stages in zip(random_recipes(SEED, NUMBER), built, strict=True):
        for stage, parts in zip(layout_of(recipe).stages, stages, strict=True):
            planned = {part.part: [part.total, part.trained] for part in stage_parameters(recipe, stage)}
            assert planned == parts, (recipe, stage)
            compared += 1
    print(f"{compared} stages of {NUMBER} models equal")
    assert compared > NUMBER


def test_stages_add_up_to_the_model() -> None:
    """Over tensor ranks, all but norms, positions, tower and projector is cut; nothing is lost or held twice."""
    for recipe in random_recipes(SEED + 1, 200):
        language, tensor = recipe.model.language, recipe.parallel.tensor_model_parallel_size
        stages = layout_of(recipe).stages
        held = sum(stage_parameters(recipe, stage)[0].total for stage in stages)
        same = (2 * language.num_layers + 1) * language.hidden_size
        same += 2 * language.num_layers * language.head_size * (language.family == "qwen3")
        if language.family == "gpt2":  # biases of norms and of what writes to the residual stream, and positions
            same = 2 * same + 2 * language.num_layers * language.hidden_size
            same += language.max_position_embeddings * language.hidden_size
        whole = (held - same) * tensor + same
        padding = language.padded_vocab_size(tensor) - language.vocab_size
        copies = 1 if language.share_embeddings_and_output_weights and len(stages) == 1 else 2
        tied_again = language.share_embeddings_and_output_weights and len(stages) > 1
        expected = count_parameters(recipe)[0].total + copies * padding * language.hidden_size
        assert whole == expected + tied_again * language.vocab_size * language.hidden_size


def test_tied_embeddings_stand_on_both_ends() -> None:
    tied = {"model.language.share_embeddings_and_output_weights": True, "trainer.devices": 2}
    one = small_recipe(tied)
    two = small_recipe({**tied, "parallel.pipeline_model_parallel_size": 2})
    held = [sum(stage_parameters(recipe, s)[0].total for s in layout_of(recipe).stages) for recipe in (one, two)]
    assert held[1] - held[0] == 104 * 32  # 100 tokens padded to a multiple of 8


@pytest.mark.parametrize(("tied", "tables"), [(False, 2), (True, 1)])
def test_the_rows_that_pad_a_vocabulary_are_what_a_single_gpu_holds_beyond_the_model(tied, tables) -> None:
    recipe = small_recipe({"model.language.share_embeddings_and_output_weights": tied})
    (stage,) = layout_of(recipe).stages
    held = sum(part.total for part in stage_parameters(recipe, stage))
    assert padding_parameters(recipe) == held - total_parameters(recipe) == tables * 4 * 32  # 100 tokens, multiple of 8


def test_the_recipes_for_a_laptop_are_small_and_the_published_are_not() -> None:
    assert [is_small(build(llava.finetune(size))) for size in ("tiny", "7b", "13b")] == [True, False, False]
