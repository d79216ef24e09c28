"""In what a training that ran is not the one that the recipe asks for."""

import dataclasses
import math

from neva_recipes.config import ParallelConfig, Recipe
from tests.plan.against_core.rank import Measured

__all__ = ["differences", "in_one_process"]

_TOLERANCES = {"fp32": 1e-4, "bf16": 2e-2}


def in_one_process(recipe: Recipe) -> Recipe:
    """Return the same training in one process, one microbatch a step, nothing recomputed."""
    kept_all = {
        "recompute_granularity": None,
        "recompute_method": None,
        "recompute_num_layers": None,
        "recompute_modules": None,
    }
    return dataclasses.replace(
        recipe,
        parallel=ParallelConfig(),
        trainer=dataclasses.replace(recipe.trainer, num_nodes=1, devices=1),
        data=dataclasses.replace(recipe.data, micro_batch_size=recipe.data.global_batch_size),
        model=dataclasses.replace(recipe.model, **kept_all),
    )


def differences(recipe: Recipe, ranks: list[Measured], reference: Measured) -> list[str]:
    """Say in what a training is not the one that its recipe asks for.

    Args:
        recipe: The recipe.
        ranks: What each rank saw.
        reference: What the recipe of `in_one_process` saw.
    """
    found = []
    tolerance = _TOLERANCES[recipe.precision.precision]
    for name in ("losses", "grad_norms"):
        theirs = getattr(reference, name)
        for rank, measured in enumerate(ranks):
            ours = getattr(measured, name)
            if not all(math.isclose(*pair, rel_tol=tolerance, abs_tol=1e-6) for pair in zip(ours, theirs, strict=True)):
                found.append(f"{name} {ours} on rank {rank}, {theirs} in one process")
                break
    found += _left_undone(recipe, ranks, reference)
    return found


def _left_undone(recipe: Recipe, ranks: list[Measured], reference: Measured) -> list[str]:
    """Say what a recipe asks for that Core has silently not done."""
    found = []
    if not any(reference.grad_norms):
        found.append("nothing is trained")
    model, parallel = recipe.model, recipe.parallel
    found += _recomputed_otherwise(recipe, ranks, reference)
    if parallel.overlap_param_gather != all(measured.gathers_ahead for measured in ranks):
        found.append("weights are not gathered while the forward pass goes on")
    language = model.language
    width = language.num_attention_heads * language.kv_channels if language.kv_channels else language.hidden_size
    widths = set().union(*(measured.attention_widths for measured in ranks))
    if widths != {width}:
        found.append(f"all heads together are {widths} wide, not {width}")
    tokens = set().union(*(measured.tokens_per_image for measured in ranks))
    if model.vision is not None and model.vision.image_token_len not in (None, *tokens):
        found.append(f"an image makes {tokens} tokens, not {model.vision.image_token_len}")
    return found


def _recomputed_otherwise(recipe: Recipe, ranks: list[Measured], reference: Measured) -> list[str]:
    """Say whether layers are recomputed that should not be, or not as many as asked for."""
    model, parallel, data = recipe.model, recipe.parallel, recipe.data
    asks = (model.recompute_granularity, model.recompute_method, model.recompute_num_layers, model.recompute_modules)
    shared_by = parallel.tensor_model_parallel_size * parallel.context_parallel_size
    needed = reference.forwards * (data.global_batch_size // data.micro_batch_size) * shared_by
    ran = sum(measured.forwards for measured in ranks)
    if any(asks) != (ran > needed):
        return [f"attention and MLP ran {ran} times, {needed} times without recomputation"]
    if model.recompute_method != "block":
        return []
    # Forward passes of one layer on one rank: ranks that share the layers have the same microbatches.
    replicas = len(ranks) // (shared_by * parallel.pipeline_model_parallel_size)
    once = needed // (model.language.num_layers * shared_by * replicas)
    most = max(measured.forwards // once - measured.layers for measured in ranks)
    asked = (model.recompute_num_layers or 0) * (parallel.virtual_pipeline_model_parallel_size or 1)
    return [f"{most} layers of a stage are recomputed, not {asked}"] if most < asked else []
