"""The small models whose weights, gradients and optimizer are measured, by number of processes."""

from neva_recipes.config import Recipe
from tests.plan.model_shapes import small_recipe

__all__ = ["CASES", "recipe_of"]

# Buffers are padded to multiples of 64 numbers: with widths of 64 nothing is.
WIDTHS = {
    "model.language.hidden_size": 64,
    "model.language.ffn_hidden_size": 128,
    "model.language.vocab_size": 256,
    "model.vision.hidden_size": 64,
    "model.vision.ffn_hidden_size": 128,
    "data.global_batch_size": 8,
    "data.micro_batch_size": 2,
}
BF16 = {"precision.precision": "bf16"}
STAGE_1 = {"model.language.freeze": True}
TOWER = {"model.vision.freeze": False}
WHOLE = {"parallel.use_distributed_optimizer": False}
HALF_SUMS = {"precision.grad_reduce_in_fp32": False}
TP2 = {"parallel.tensor_model_parallel_size": 2}
PP2 = {"parallel.pipeline_model_parallel_size": 2}
LORA = {"model.language.lora.rank": 64, "model.language.lora.kind": "lora"}
"""A rank as the widths, so that nothing is padded."""
DORA = {"model.language.lora.rank": 64, "model.language.lora.kind": "dora", "model.vision.lora.rank": 64}
CASES: dict[int, list[dict[str, object]]] = {
    1: [
        {},
        WHOLE,
        BF16,
        {**BF16, **WHOLE},
        {**BF16, **STAGE_1},
        {**BF16, **TOWER, "trainer.ema_decay": 0.9},
        {**BF16, **HALF_SUMS},
        {**BF16, **HALF_SUMS, **WHOLE},
        {**BF16, **HALF_SUMS, **WHOLE, **STAGE_1},
        HALF_SUMS,
        {**HALF_SUMS, **WHOLE},
        LORA,
        {**BF16, **LORA},
        {**BF16, **DORA, **WHOLE},
        {**BF16, "text": True, "model.language.share_embeddings_and_output_weights": True},
    ],
    2: [
        {},
        BF16,
        WHOLE,
        {**BF16, **WHOLE},
        {**BF16, **HALF_SUMS},
        {**BF16, **HALF_SUMS, **WHOLE},
        HALF_SUMS,
        {**BF16, **STAGE_1},
        {**BF16, **TOWER},
        TP2,
        {**TP2, **BF16},
        {**TP2, **BF16, **HALF_SUMS, **WHOLE},
        {**TP2, **BF16, **STAGE_1, "parallel.sequence_parallel": True},
        {**TP2, **BF16, **TOWER, **WHOLE},
        {**BF16, **LORA},
        {**TP2, **BF16, **LORA, "parallel.sequence_parallel": True},
        {**TP2, **BF16, **DORA, **WHOLE},
        {**PP2, **BF16, **LORA, "model.language.lora.layers": "0"},
        PP2,
        {**PP2, **BF16},
        {**PP2, **BF16, **STAGE_1},
        {**PP2, **BF16, "parallel.virtual_pipeline_model_parallel_size": 2},
        {**PP2, **BF16, **WHOLE, "model.language.share_embeddings_and_output_weights": True},
    ],
}
"""Changes of the small recipe, by number of processes."""


def recipe_of(case: dict[str, object], processes: int) -> Recipe:
    return small_recipe({**WIDTHS, "trainer.devices": processes, **case})
