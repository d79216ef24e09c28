"""Time and cost: against published training times, by hand, and in the order of layouts."""

import math

import pytest

from neva_recipes import gpt, llava, neva
from neva_recipes.config import Recipe, build, set_field
from neva_recipes.plan import layout_of
from neva_recipes.plan.cost.cost import Cost, cost_of
from neva_recipes.plan.cost.gpus import GPUS, find_gpu
from neva_recipes.plan.data.lengths import Lengths
from tests.plan.model_shapes import random_recipes, small_recipe


def lengths(
    tokens: float = 1000, padded: float | None = None, images: float = 1, samples: int | None = None
) -> Lengths:
    return Lengths(tokens, padded or tokens, images, samples, 0.0, "assumed", False)


def cost(recipe: Recipe, row: Lengths | None = None, gpu: str = "h100-80g") -> Cost:
    return cost_of(recipe, layout_of(recipe), row or lengths(), find_gpu(gpu))


def llava_recipe(stage: str = "finetune", size: str = "7b", **fields: object) -> Recipe:
    recipe = getattr(llava, stage)(size)
    for name, value in fields.items():
        set_field(recipe, name.replace("__", "."), str(value))
    return build(recipe)


# Hours on eight A100 of 80 GB that LLaVA-1.5's authors give (7B finetune: on 40 GB), with the lengths of the data taken
# as 608 and 1000 tokens. Their code shards with DeepSpeed ZeRO and recomputes every layer: nearest to this layout.
@pytest.mark.parametrize(
    ("stage", "size", "hours"),
    [("pretrain", "7b", 3.5), ("finetune", "7b", 10), ("pretrain", "13b", 5.5), ("finetune", "13b", 20)],
)
def test_published_times(stage: str, size: str, hours: float) -> None:
    whole = {"parallel__tensor_model_parallel_size": 1, "parallel__sequence_parallel": False}
    micro, tokens = (32, 608) if stage == "pretrain" else (16, 1000)
    recipe = llava_recipe(stage, size, **whole, data__micro_batch_size=micro)
    planned = cost(recipe, lengths(tokens), "a100-80g").hours
    print(f"{size} {stage}: {planned:.1f} h, published {hours} h, {planned / hours - 1:+.0%}")
    assert planned == pytest.approx(hours, rel=0.25)


def test_by_hand() -> None:
    recipe = llava_recipe()
    row = lengths(tokens=1000, padded=1250)
    planned = cost(recipe, row)
    weights = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    forward = 2 * weights * 1250 + 32 * 2 * 4096 * 1250**2
    assert planned.padding == pytest.approx(0.2)
    assert planned.recompute_tflop == pytest.approx(128 * forward / 1e12)
    assert planned.steps == 5198
    assert planned.hours == pytest.approx(5198 * planned.step_seconds / 3600)
    assert planned.gpu_hours == pytest.approx(8 * planned.hours)
    assert planned.step_seconds == pytest.approx(sum(planned.step_seconds_of.values()))
    assert planned.sample_tflop == pytest.approx(sum(planned.sample_tflop_of.values()))
    assert planned.sample_tflop == pytest.approx(40.9, rel=0.03)
    assert planned.sample_tflop * 128 < planned.step_tflop
    # Attention takes half of a row's square three times, and once more where it is recomputed.
    attention = 128 * 4 * 32 * 2 * 4096 * 1250**2 / 1e12
    products = (planned.step_tflop + planned.recompute_tflop - attention) / 8 / (989 * planned.utilisation)
    assert planned.step_seconds_of["matrix products"] == pytest.approx(products)
    assert planned.step_seconds_of["attention"] == pytest.approx(attention / 8 / (989 * 0.28))
    # A token keeps 22h + 4(q + k) + 8f elements in a layer, and 10h + 2(q + k) + 3f to recompute it; 16 bytes a logit.
    moved = 2 * 32 * (32 * 4096 + 6 * 2 * 4096 + 11 * 11008) + 16 * 32000
    assert planned.step_seconds_of["other kernels"] == pytest.approx(16 * 1250 * moved / (0.85 * 3350e9))
    assert planned.hours_range == pytest.approx((planned.hours / 1.25, planned.hours * 1.25))
    # Gradients of 6.76 billion weights, 4 bytes each, 7/8 of them over 450 GB/s; then the weights in 2 bytes.
    trained = 6_738_415_616 + 20_979_712
    assert planned.step_seconds_of["data parallel"] == pytest.approx(trained * 6 * 7 / 8 / 450e9)


def test_steps_follow_the_file() -> None:
    recipe = llava_recipe(trainer__max_steps="none", trainer__max_epochs=2)
    unknown = cost(recipe)
    assert (unknown.steps, unknown.hours, unknown.gpu_hours) == (None, None, None)
    assert cost(recipe, lengths(samples=665_298)).steps == math.ceil(2 * 665_298 / 128)


def test_pipeline_bubble_is_that_of_the_layout() -> None:
    """The slowest stage idles for the share that the layout tells."""
    recipe = small_recipe({"text": True, "trainer.devices": 4, "parallel.pipeline_model_parallel_size": 4})
    seconds = cost(recipe, lengths(64)).step_seconds_of
    busy = sum(each for cause, each in seconds.items() if cause not in ("bubble", "data parallel", "optimizer"))
    assert seconds["bubble"] / (seconds["bubble"] + busy) == pytest.approx(layout_of(recipe).bubble)


def split(size: int, **fields: object) -> dict[str, object]:
    return {"parallel__tensor_model_parallel_size": size, "parallel__sequence_parallel": size > 1, **fields}


KEEP_ALL = {f"model__recompute_{name}": "none" for name in ("granularity", "method", "num_layers")}
PIPELINE = {"parallel__pipeline_model_parallel_size": 4}
SLOWER: list[tuple[str, dict[str, object], dict[str, object]]] = [
    ("tensor parallelism", split(2), split(1)),
    ("more of it", split(8), split(2)),
    ("over two machines", split(16, trainer__num_nodes=2), split(8, trainer__num_nodes=2)),
    ("small microbatches", {"data__micro_batch_size": 1}, {"data__micro_batch_size": 4}),
    ("recomputation", {}, KEEP_ALL),
    ("few microbatches in a pipeline", {**PIPELINE, "data__global_batch_size": 16}, PIPELINE),
    ("no virtual stages", PIPELINE, {**PIPELINE, "parallel__virtual_pipeline_model_parallel_size": 2}),
    ("gradients reduced afterwards", {}, {"parallel__overlap_grad_reduce": True}),
    ("bf16", {}, {"precision__fp8": "hybrid"}),
    ("fp32", {"precision__precision": "fp32"}, {}),
]


@pytest.mark.parametrize(("what", "slow", "fast"), SLOWER, ids=[what for what, _, _ in SLOWER])
def test_orders_layouts(what: str, slow: dict[str, object], fast: dict[str, object]) -> None:
    times = []
    for fields in (slow, fast):
        recipe = llava_recipe(**fields)
        times.append(cost(recipe).step_seconds / recipe.data.global_batch_size)
    assert times[0] > times[1], what


def test_slow_links_make_tensor_parallelism_dear() -> None:
    split = llava_recipe(parallel__tensor_model_parallel_size=4, parallel__sequence_parallel=True)
    shares = {}
    for gpu in ("h100-80g", "l40s"):
        planned = cost(split, gpu=gpu)
        shares[gpu] = planned.step_seconds_of["tensor parallel"] / planned.step_seconds
    assert shares["l40s"] > 2 * shares["h100-80g"] > 0.05


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize(
    "recipe",
    [gpt.pretrain("tiny"), llava.pretrain("tiny"), gpt.pretrain("7b"), neva.pretrain("13b")],
    ids=lambda recipe: f"{recipe.name}-{recipe.model.language.num_layers}",
)
def test_every_recipe_has_a_cost(recipe, gpu: str) -> None:
    built = build(recipe)
    planned = cost(built, lengths(100, images=float(built.model.vision is not None)), gpu)
    assert 0 < planned.step_seconds < 3600
    assert planned.hours > 0
    assert planned.padding == 0


def test_random_layouts_have_finite_costs_and_every_gpu_works_less_together() -> None:
    for recipe in random_recipes(7, 100):
        planned = cost(recipe, lengths(48, 64, images=float(recipe.model.vision is not None)))
        assert all(seconds >= 0 for seconds in planned.step_seconds_of.values())
        assert math.isfinite(planned.step_seconds) and planned.step_seconds > 0
        # No layout is faster than all GPUs at work all the time.
        peak = 67 * planned.utilisation * layout_of(recipe).world_size
        assert planned.step_seconds >= 0.999 * (planned.step_tflop + planned.recompute_tflop) / peak
