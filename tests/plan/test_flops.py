"""Operation counts against torch's flop counter over real passes, and against figures counted elsewhere."""

import json
import os
import subprocess
import sys

import pytest

from neva_recipes import llava
from neva_recipes.config import build
from neva_recipes.plan import layout_of
from neva_recipes.plan.cost.flops import model_flops, recompute_flops, training_flops
from tests.plan.model_shapes import small_recipe

STAGE_1 = {"model.language.freeze": True}
FULL = {"model.recompute_granularity": "full", "model.recompute_method": "uniform", "model.recompute_num_layers": 1}
BLOCK = {**FULL, "model.recompute_method": "block", "model.recompute_num_layers": 3}
ATTENTION = {"model.recompute_granularity": "selective"}
MLP = {"model.recompute_granularity": "selective", "model.recompute_modules": "[mlp]"}
BOTH = {"model.recompute_granularity": "selective", "model.recompute_modules": "[mlp, core_attn]"}
CASES: dict[str, dict[str, object]] = {
    "finetune": {},
    "pretrain": STAGE_1,
    "finetune, full recompute": FULL,
    "pretrain, full recompute": {**STAGE_1, **FULL},
    "finetune, block recompute": BLOCK,
    "finetune, attention again": ATTENTION,
    "pretrain, attention again": {**STAGE_1, **ATTENTION},
    "finetune, MLP again": MLP,
    "pretrain, both again": {**STAGE_1, **BOTH},
    "tower trained": {"model.vision.freeze": False},
    "tower trained alone": {**STAGE_1, "model.vision.freeze": False, "model.projector.freeze": True},
    "projector frozen": {"model.projector.freeze": True},
    "SigLIP, last layer, linear": {
        "model.vision.vision_model_type": "siglip",
        "model.vision.hidden_act": "gelu_pytorch_tanh",
        "model.vision.vision_select_layer": -1,
        "model.vision.freeze": False,
        "model.projector.mm_projector_type": "linear",
    },
    "DINOv2 trained, other positions": {
        "model.vision.vision_model_type": "dinov2",
        "model.vision.hidden_act": "gelu",
        "model.vision.ffn_hidden_size": 32,
        "model.vision.position_image_size": 70,
        "model.vision.freeze": False,
    },
    "grouped heads, wide heads": {"model.language.num_query_groups": 1, "model.language.kv_channels": 24},
    "text": {"text": True},
    "qwen2": {"model.language.family": "qwen2"},
    "qwen3": {"model.language.family": "qwen3"},
    "mistral": {"model.language.family": "mistral"},
    "phi3": {"model.language.family": "phi3"},
    "internlm2, MLP again": {"model.language.family": "internlm2", **MLP},
    "gpt2": {"model.language.family": "gpt2", "model.language.num_query_groups": 4},
    "gpt2, full recompute": {"model.language.family": "gpt2", "model.language.num_query_groups": 4, **FULL},
}


@pytest.mark.slow
def test_equal_to_torch_flop_counter() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.plan.counted_flops", json.dumps(list(CASES.values()))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    counted = json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)
    largest = 0.0
    for (name, case), real in zip(CASES.items(), counted, strict=True):
        recipe = small_recipe(case)
        rows, length = 2, 24
        images = rows if recipe.model.vision else 0
        components = model_flops(recipe.model, sequence_length=length, sequences=rows, images=images)
        again = sum(recompute_flops(recipe.model, sequence_length=length, sequences=rows, chunks=[4]).values())
        attention = next(component for component in components if component.component == "attention")
        # The counter takes attention's products as whole squares, causal attention needs half of each: its share is
        # doubled here, that of the recomputation too. All rows of the padded vocabulary are multiplied.
        whole_squares = attention.training
        language = recipe.model.language
        modules = recipe.model.recompute_modules or ["core_attn"]
        if recipe.model.recompute_granularity == "full":
            share = 3 / 4 if recipe.model.recompute_method == "block" else 1
            whole_squares += attention.forward * share
        elif recipe.model.recompute_granularity == "selective" and "core_attn" in modules:
            whole_squares += attention.forward
        logits = next(component for component in components if component.component == "logits")
        padding = logits.training * (language.padded_vocab_size(1) / language.vocab_size - 1)
        planned = sum(component.training for component in components) + again + whole_squares + padding
        largest = max(largest, abs(planned / real - 1))
        assert planned == pytest.approx(real, rel=0.01), name
    print(f"largest difference {largest:.4%}")


# TFLOP of one sample of LLaVA-1.5 7B, counted elsewhere with 2 operations per weight and token in the forward pass.
@pytest.mark.parametrize(
    ("stage", "length", "tflop"), [("pretrain", 608, 16.7), ("pretrain", 2048, 56.8), ("finetune", 1000, 40.9)]
)
def test_check_values(stage: str, length: int, tflop: float) -> None:
    model = build(getattr(llava, stage)("7b")).model
    assert training_flops(model, sequence_length=length, sequences=1, images=1) / 1e12 == pytest.approx(tflop, rel=0.03)


def test_components_of_7b_by_hand() -> None:
    model = build(llava.finetune("7b")).model
    counted = {part.component: part for part in model_flops(model, sequence_length=1000, sequences=2, images=2)}
    layer = 4 * 4096**2 + 3 * 4096 * 11008
    assert counted["linear layers"].forward == 2 * 2000 * 32 * layer
    assert counted["linear layers"].training == 3 * counted["linear layers"].forward
    # Scores and values of 500 earlier positions on average, 2 operations each, 4096 wide.
    assert counted["attention"].forward == 32 * 2000 * 4 * 500 * 4096
    assert counted["logits"].forward == 2 * 2000 * 4096 * 32000
    assert counted["vision"].training == counted["vision"].forward


@pytest.mark.parametrize("window", [1, 96, 512, 1023, 1024, 4096])
def test_attention_sees_what_the_window_leaves(window: int) -> None:
    length = 1024
    seen = sum(min(position + 1, window) for position in range(length))
    changes = {"text": True, "model.language.family": "mistral", "model.language.sliding_window": window}
    model = small_recipe(changes).model
    attention = model_flops(model, sequence_length=length, sequences=1, images=0)[1]
    assert attention.component == "attention"
    counted = 4 * model.language.num_layers * model.language.hidden_size * seen
    assert attention.forward == pytest.approx(counted, rel=0.01)


def test_recompute_follows_the_stages() -> None:
    """Block recomputes the first layers of every stage, so more stages recompute more layers."""
    one, four = (
        small_recipe({**BLOCK, "model.recompute_num_layers": 1, "parallel.pipeline_model_parallel_size": size})
        for size in (1, 4)
    )
    again = [
        sum(
            recompute_flops(
                recipe.model,
                sequence_length=24,
                sequences=1,
                chunks=[len(chunk) for stage in layout_of(recipe).stages for chunk in stage.chunks],
            ).values()
        )
        for recipe in (one, four)
    ]
    assert again[1] == 4 * again[0] > 0
