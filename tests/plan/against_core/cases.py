"""For each rule a recipe that Megatron-Core refuses or runs wrongly, and a neighbour that works."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from neva_recipes.config import ProjectorConfig, Recipe
from neva_recipes.plan.core_release import CORE_RELEASES
from tests.plan.against_core.recipes import image_recipe, text_recipe

__all__ = ["CASES", "Case"]

_TENSOR = "parallel.tensor_model_parallel_size"
_PIPELINE = "parallel.pipeline_model_parallel_size"
_VIRTUAL = "parallel.virtual_pipeline_model_parallel_size"
_FIRST = "parallel.num_layers_in_first_pipeline_stage"
_LAST = "parallel.num_layers_in_last_pipeline_stage"
_CONTEXT = "parallel.context_parallel_size"
_CONTEXT_TYPE = "parallel.cp_comm_type"
_LAYERS = "model.language.num_layers"
_HEADS = "model.language.num_attention_heads"
_GROUPS = "model.language.num_query_groups"
_HEAD_SIZE = "model.language.kv_channels"
_GRANULARITY = "model.recompute_granularity"
_METHOD = "model.recompute_method"
_NUMBER = "model.recompute_num_layers"
_MODULES = "model.recompute_modules"
_FFN = "model.language.ffn_hidden_size"
_GLOBAL = "data.global_batch_size"
_MICRO = "data.micro_batch_size"
_DEVICES = "trainer.devices"
_IMAGE = "model.vision.image_size"
_SELECTED = "model.vision.vision_select_layer"
_GATHER = "parallel.overlap_param_gather"
_REDUCE = "parallel.overlap_grad_reduce"
_SHARDED = "parallel.use_distributed_optimizer"
_FROZEN = "model.language.freeze"
_EVEN = ("0.16.1",)
_FULL = {_GRANULARITY: "full", _METHOD: "uniform", _NUMBER: 1}


@dataclass(frozen=True)
class Case:
    """A rule held against Megatron-Core.

    Attributes:
        code: The finding of the plan.
        wrong: Changes that break the rule.
        right: Changes beside `wrong` with which it holds.
        reason: Pattern of what happens to the wrong recipe.
        recipe: Makes the recipe that is changed.
        releases: Releases of Megatron-Core that have the rule; under the others the wrong recipe works too.
    """

    code: str
    wrong: dict[str, Any]
    right: dict[str, Any]
    reason: str
    recipe: Callable[[dict[str, Any]], Recipe] = text_recipe
    releases: tuple[str, ...] = CORE_RELEASES

    @property
    def wrong_recipe(self) -> Recipe:
        return self.recipe(self.wrong)

    @property
    def right_recipe(self) -> Recipe:
        return self.recipe(self.wrong | self.right)


CASES = [
    # Dividing processes and batches.
    Case("world-size", {_DEVICES: 3, _TENSOR: 2}, {_DEVICES: 4}, "not divisible by 2"),
    Case("world-size", {_DEVICES: 2, _CONTEXT: 3}, {_DEVICES: 3}, "not divisible by 3"),
    Case("world-size", {"trainer.num_nodes": 3, _PIPELINE: 2, _DEVICES: 1}, {"trainer.num_nodes": 2}, "ible by 2"),
    Case("global-batch", {_GLOBAL: 6, _MICRO: 4}, {_MICRO: 3}, "divisi"),
    Case("global-batch", {_GLOBAL: 2, _DEVICES: 4}, {_GLOBAL: 4}, "divisi"),
    # Tensor parallelism.
    Case("tensor-parallel-heads", {_TENSOR: 3, _FFN: 48}, {_TENSOR: 2}, "attention_heads"),
    Case("tensor-parallel-groups", {_HEADS: 12, _GROUPS: 2, _HEAD_SIZE: 6, _TENSOR: 3}, {_GROUPS: 3}, "query_groups"),
    Case(
        "tensor-parallel-projection",
        {_HEADS: 3, _GROUPS: 1, _HEAD_SIZE: 8, _TENSOR: 3},
        {_HEAD_SIZE: 6},
        "40 is not div",
    ),
    Case("tensor-parallel-ffn", {_TENSOR: 2, _FFN: 49}, {_FFN: 50}, "49"),
    Case("sequence-parallel", {"parallel.sequence_parallel": True}, {_TENSOR: 2}, "sequence parallelism without"),
    # Context parallelism.
    Case("context-parallel-heads", {_CONTEXT: 3, _CONTEXT_TYPE: "a2a"}, {_CONTEXT: 2}, "size of dim 2"),
    Case("context-parallel-heads", {_GROUPS: 1, _CONTEXT: 2, _CONTEXT_TYPE: "a2a"}, {_CONTEXT_TYPE: "p2p"}, "of dim 2"),
    # Pipelines.
    Case("pipeline-layers", {_PIPELINE: 3}, {_PIPELINE: 4}, "num_layers.* should be divisible"),
    Case("pipeline-layers", {_PIPELINE: 3}, {_FIRST: 2}, "num_layers.* should be divisible"),
    Case("uneven-stages", {_PIPELINE: 3, _FIRST: 1}, {_FIRST: 2}, "must be divisible"),
    Case("uneven-stages", {_PIPELINE: 2, _FIRST: 1, _LAST: 2}, {_FIRST: 2}, "Mismatch"),
    Case("uneven-stages", {_PIPELINE: 2, _FIRST: 4}, {_FIRST: 3}, "Mismatch"),
    Case("uneven-stages", {_PIPELINE: 3, _FIRST: 3, _LAST: 1}, {_FIRST: 2}, "Mismatch"),
    Case("uneven-stages", {_PIPELINE: 1, _LAST: 3}, {_LAST: None}, "Mismatch"),
    Case("virtual-pipeline", {_VIRTUAL: 2}, {_PIPELINE: 2}, "greater than 1 with interleaved"),
    Case("virtual-layers", {_LAYERS: 6, _PIPELINE: 2, _VIRTUAL: 2}, {_VIRTUAL: 3}, "divisible by vp_size"),
    Case("virtual-layers", {_LAYERS: 5, _PIPELINE: 2, _FIRST: 3, _VIRTUAL: 2}, {_LAYERS: 6, _FIRST: 4}, "divisible by"),
    Case("virtual-ends", {_PIPELINE: 2, _FIRST: 2, _LAST: 2, _VIRTUAL: 2}, {_LAST: None}, "ZeroDivision"),
    Case("virtual-microbatches", {_PIPELINE: 2, _VIRTUAL: 2, _GLOBAL: 3}, {_GLOBAL: 4}, "should be 0"),
    Case("virtual-microbatches", {_PIPELINE: 2, _VIRTUAL: 2, _GLOBAL: 1}, {_VIRTUAL: None}, "should range in"),
    # The language model.
    Case("hidden-heads", {"model.language.hidden_size": 34, _HEADS: 4}, {_HEAD_SIZE: 8}, "wide, not 34"),
    Case("query-groups", {_HEADS: 4, _GROUPS: 3}, {_GROUPS: 2}, "is invalid for input"),
    Case("head-size-odd", {_HEAD_SIZE: 5}, {_HEAD_SIZE: 6}, "size of tensor"),
    Case("all-frozen", {_FROZEN: True}, {_FROZEN: False}, "nothing is trained"),
    # Recomputation.
    Case("recompute-incomplete", {_GRANULARITY: "full"}, {_METHOD: "block", _NUMBER: 2}, "recompute_method"),
    Case(
        "recompute-incomplete", {_GRANULARITY: "full", _METHOD: "block"}, {_NUMBER: 4}, "num_layers_per_pipeline_rank"
    ),
    Case("recompute-unused", {_METHOD: "uniform", _NUMBER: 1}, {_GRANULARITY: "full"}, "without recomputation"),
    Case("recompute-unused", {_GRANULARITY: "selective", _NUMBER: 1}, {_NUMBER: None}, "must be None"),
    Case("recompute-layers", _FULL | {_NUMBER: 3}, {_NUMBER: 2}, "IndexError", releases=_EVEN),
    Case("recompute-layers", _FULL | {_NUMBER: 4, _PIPELINE: 2}, {_NUMBER: 2}, "IndexError", releases=_EVEN),
    Case(
        "recompute-layers",
        _FULL | {_NUMBER: 2, _PIPELINE: 2, _VIRTUAL: 2},
        {_NUMBER: 1},
        "IndexError",
        releases=_EVEN,
    ),
    Case("recompute-layers", _FULL | {_NUMBER: 5, _METHOD: "block"}, {_NUMBER: 4}, "not 5"),
    Case("recompute-modules", {_MODULES: ["mlp"]}, {_GRANULARITY: "selective"}, "without recomputation"),
    Case(
        "recompute-norms-cpu",
        {_GRANULARITY: "selective", _MODULES: ["layernorm"]},
        {_MODULES: ["mlp"]},
        "Transformer Engine",
    ),
    # Number formats, seed and optimizer.
    Case(
        "fp8-cpu",
        {"precision.fp8": "hybrid", "precision.precision": "bf16"},
        {"precision.fp8": None},
        "needs a GPU with",
    ),
    Case("seed", {"trainer.seed": 1 << 32}, {"trainer.seed": (1 << 32) - 1}, "not in bounds"),
    Case("adam-beta", {"optim.adam_beta2": 1.0}, {"optim.adam_beta2": 0.999}, "nan|ZeroDivision"),
    Case(
        "overlap-param-gather",
        {_GATHER: True, _SHARDED: False, _REDUCE: True, _DEVICES: 2},
        {_SHARDED: True},
        "weights are not gathered|not iterable",
    ),
    Case(
        "overlap-param-gather",
        {_GATHER: True, _DEVICES: 2},
        {_REDUCE: True},
        "weights are not gathered",
    ),
    # Images.
    Case(
        "vision-heads",
        {"model.vision.num_attention_heads": 3},
        {"model.vision.num_attention_heads": 4},
        "multiple of the num",
        image_recipe,
    ),
    Case("image-patches", {_IMAGE: 30}, {"model.vision.vision_model_type": "siglip"}, "AssertionError", image_recipe),
    Case("image-patches", {_IMAGE: 13}, {_IMAGE: 14}, "Kernel size", image_recipe),
    Case("vision-select-layer", {_SELECTED: -5}, {_SELECTED: -4}, "IndexError", image_recipe),
    Case("vision-select-layer", {_SELECTED: 4}, {_SELECTED: 3}, "IndexError", image_recipe),
    Case(
        "image-token-len",
        {"model.vision.image_token_len": 5},
        {"model.vision.vision_select_feature": "cls_patch"},
        "tokens, not 5",
        image_recipe,
    ),
    Case(
        "image-does-not-fit", {"data.sequence_length": 4}, {"data.sequence_length": 5}, "no answer left", image_recipe
    ),
    Case(
        "vision-and-projector",
        {"model.projector": None},
        {"model.projector": ProjectorConfig()},
        "AssertionError",
        image_recipe,
    ),
    Case(
        "all-frozen",
        {_FROZEN: True, "model.projector.freeze": True},
        {"model.vision.freeze": False},
        "nothing is trained",
        image_recipe,
    ),
]
