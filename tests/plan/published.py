"""Training speeds that others have published, each with the recipe that is nearest to what they ran.

Sources: NVIDIA's performance summaries of NeMo (24.03 and 24.07 in its README, 25.02 in its documentation) and of
Megatron-Bridge (25.11, 26.04, 26.06), with the recipes of its `perf_recipes`; the README of LLaVA for its hours.
"""

from dataclasses import dataclass

from neva_recipes import gpt
from neva_recipes.config import Recipe, build

__all__ = ["LLAVA_HOURS", "POINTS", "Point"]

_SHAPES = {  # layers, hidden size, feed-forward size, heads, groups, vocabulary
    "Llama-2 7B": (32, 4096, 11008, 32, 32, 32000),
    "Llama-2 13B": (40, 5120, 13824, 40, 40, 32000),
    "Llama-2 70B": (80, 8192, 28672, 64, 8, 32000),
    "Llama-3 8B": (32, 4096, 14336, 32, 8, 128256),
    "Llama-3 70B": (80, 8192, 28672, 64, 8, 128256),
    # 126 layers, and embedding and output layer that count as one each where stages are filled.
    "Llama-3 405B": (128, 16384, 53248, 128, 8, 128256),
    # Its MLP has two matrices of 4h; three of 8h/3 have as many weights.
    "GPT-3 175B": (96, 12288, 32768, 96, 96, 51200),
}


@dataclass(frozen=True)
class Point:
    """What somebody has measured.

    Attributes:
        model: Name of the shape.
        gpu: Type of GPU.
        gpus: Number of them.
        tokens: Tokens of a second on each GPU.
        length: Tokens of a row.
        micro: Rows of a microbatch.
        batch: Rows of a step.
        split: Tensor-, pipeline-, virtual-pipeline- and context-parallel sizes.
        fp8_recipe: How FP8 scales were chosen.
        source: Where it is published.
        fitted: Whether the constants of the time model were chosen with it.
        recomputed_layers: Layers that are recomputed in the backward pass.
    """

    model: str
    gpu: str
    gpus: int
    tokens: float
    length: int
    micro: int
    batch: int
    split: tuple[int, int, int, int]
    fp8_recipe: str
    source: str
    fitted: bool = False
    recomputed_layers: int = 0

    @property
    def name(self) -> str:
        tensor, pipeline, virtual, context = self.split
        sizes = (("TP", tensor), ("PP", pipeline), ("VP", virtual), ("CP", context))
        layout = " ".join(f"{name}{size}" for name, size in sizes if size > 1) or "DP"
        return f"{self.model}, {self.gpus} {self.gpu}, {layout}, {self.length} tokens, {self.batch} rows"

    def recipe(self) -> Recipe:
        """Return the recipe: weights and sums as NVIDIA's recipes have them, overlap where ours can."""
        recipe = gpt.pretrain("7b")
        language, parallel, precision, data = recipe.model.language, recipe.parallel, recipe.precision, recipe.data
        (
            language.num_layers,
            language.hidden_size,
            language.ffn_hidden_size,
            language.num_attention_heads,
            language.num_query_groups,
            language.vocab_size,
        ) = _SHAPES[self.model]
        language.max_position_embeddings = data.sequence_length = self.length
        data.micro_batch_size, data.global_batch_size = self.micro, self.batch
        tensor, pipeline, virtual, context = self.split
        parallel.tensor_model_parallel_size, parallel.sequence_parallel = tensor, tensor > 1
        parallel.pipeline_model_parallel_size, parallel.context_parallel_size = pipeline, context
        parallel.virtual_pipeline_model_parallel_size = virtual if virtual > 1 else None
        parallel.overlap_grad_reduce = parallel.overlap_param_gather = True
        recipe.trainer.devices = min(self.gpus, 8)
        recipe.trainer.num_nodes = self.gpus // recipe.trainer.devices
        precision.grad_reduce_in_fp32 = False
        precision.fp8, precision.fp8_recipe, precision.fp8_param = "hybrid", self.fp8_recipe, True
        recipe.model.recompute_granularity = "full" if self.recomputed_layers else None
        recipe.model.recompute_method = "block" if self.recomputed_layers else None
        recipe.model.recompute_num_layers = self.recomputed_layers or None
        return build(recipe)


_H100, _B200, _README, _LONG = "h100-80g", "b200", "NeMo 24.07", "NeMo 24.03"
POINTS = [
    Point("Llama-2 7B", _H100, 8, 16934, 4096, 1, 128, (1, 1, 1, 1), "delayed", _README, fitted=True),
    Point("Llama-2 13B", _H100, 16, 8715, 4096, 1, 128, (1, 4, 10, 1), "delayed", _README),
    Point("Llama-2 70B", _H100, 64, 1728, 4096, 1, 128, (4, 4, 20, 1), "delayed", _README),
    Point("GPT-3 175B", _H100, 128, 716, 2048, 1, 256, (4, 8, 6, 1), "delayed", _README),
    Point("GPT-3 175B", _H100, 512, 825, 2048, 2, 2048, (4, 8, 6, 1), "delayed", _README),
    Point("Llama-3 8B", _H100, 8, 12273, 8192, 1, 128, (1, 1, 1, 2), "delayed", _README),
    Point("Llama-3 70B", _H100, 64, 1524, 8192, 1, 128, (4, 4, 5, 2), "delayed", _README),
    Point("Llama-2 7B", _H100, 8, 13907, 8192, 1, 512, (1, 2, 1, 1), "delayed", _LONG),
    Point("Llama-2 7B", _H100, 16, 10082, 16384, 1, 256, (2, 1, 1, 1), "delayed", _LONG),
    Point("Llama-2 7B", _H100, 32, 6687, 32768, 1, 128, (2, 1, 1, 2), "delayed", _LONG, fitted=True),
    Point("Llama-2 7B", _H100, 64, 4021, 65536, 1, 64, (4, 1, 1, 2), "delayed", _LONG),
    Point("Llama-2 7B", _H100, 128, 2260, 131072, 1, 32, (4, 1, 1, 4), "delayed", _LONG),
    # Run with sharded weights (FSDP), which are not ours; NVIDIA's later recipe recomputes five layers instead.
    Point("Llama-3 8B", _H100, 8, 14451, 8192, 1, 128, (1, 1, 1, 1), "tensorwise", "Bridge 25.11", True, 5),
    Point("Llama-3 70B", _H100, 64, 1602, 8192, 1, 128, (4, 8, 5, 1), "tensorwise", "Bridge 25.11", fitted=True),
    Point("Llama-3 70B", _H100, 64, 1664, 8192, 1, 256, (4, 8, 5, 1), "tensorwise", "Bridge 26.04"),
    Point("Llama-3 70B", _H100, 32, 1638, 4096, 1, 32, (4, 4, 5, 1), "tensorwise", "Bridge 26.06"),
    Point("Llama-3 405B", _H100, 1024, 292, 8192, 1, 512, (8, 8, 8, 2), "tensorwise", "Bridge 25.11"),
    Point("Llama-3 405B", _H100, 1024, 328, 8192, 1, 1536, (8, 8, 8, 2), "tensorwise", "Bridge 26.04"),
    Point("Llama-3 8B", _B200, 8, 30624, 8192, 2, 128, (1, 1, 1, 1), "tensorwise", "Bridge 25.11", fitted=True),
    Point("Llama-3 405B", _B200, 128, 661, 8192, 1, 64, (4, 8, 8, 2), "tensorwise", "Bridge 25.11"),
    Point("Llama-3 70B", _B200, 64, 3062, 8192, 1, 128, (2, 4, 5, 2), "delayed", "NeMo 25.02"),
]

LLAVA_HOURS = {("pretrain", "7b"): 3.5, ("finetune", "7b"): 10.0, ("pretrain", "13b"): 5.5, ("finetune", "13b"): 20.0}
"""Hours on eight A100 that LLaVA-1.5's authors give, of 80 GB (7B finetune: of 40 GB); all four were fitted."""
