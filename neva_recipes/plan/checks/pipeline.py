"""Rules on micro batches in a pipeline."""

import math
from collections.abc import Iterator

from neva_recipes.config import Recipe
from neva_recipes.plan.checks._rules import Found, Rule, around, found, multiples
from neva_recipes.plan.cost.sizes import data_parallel_size, num_microbatches
from neva_recipes.plan.findings import error, warning

__all__ = ["pipeline_rules"]

_PIPELINE = "parallel.pipeline_model_parallel_size"
_VIRTUAL = "parallel.virtual_pipeline_model_parallel_size"
_GLOBAL = "data.global_batch_size"
_MICRO = "data.micro_batch_size"

_BUBBLE = 0.2
"""Share of a step that the stages may idle without a warning."""


def virtual_microbatches(recipe: Recipe) -> Iterator[Found]:
    """The interleaved schedule takes micro batches in groups of one for each stage."""
    stages, pieces = (
        recipe.parallel.pipeline_model_parallel_size,
        recipe.parallel.virtual_pipeline_model_parallel_size or 1,
    )
    number, replicas = num_microbatches(recipe), data_parallel_size(recipe)
    if pieces > 1 and stages > 1 and number is not None and replicas is not None and number % stages:
        group = recipe.data.micro_batch_size * replicas * stages
        message = (
            f"with virtual stages the {number} microbatches of a replica must be a multiple of {stages} stages, "
            f"the global batch one of {group}"
        )
        yield found(
            error("virtual-microbatches", message, recipe, _GLOBAL, _MICRO, _PIPELINE, _VIRTUAL),
            *multiples(_GLOBAL, recipe.data.global_batch_size, group),
            around(_MICRO, recipe.data.micro_batch_size)[0],
            [{_VIRTUAL: None}],
        )


def bubble(recipe: Recipe) -> Iterator[Found]:
    """There are enough micro batches to keep the stages of a pipeline busy."""
    idle, pieces = (
        recipe.parallel.pipeline_model_parallel_size - 1,
        recipe.parallel.virtual_pipeline_model_parallel_size or 1,
    )
    number, replicas = num_microbatches(recipe), data_parallel_size(recipe)
    if idle == 0 or number is None or replicas is None:
        return
    # The same share as Layout.bubble: arXiv 2104.04473, section 2.2.
    share = idle / (pieces * number + idle)
    if share > _BUBBLE:
        enough = math.ceil(idle * (1 / _BUBBLE - 1) / pieces)
        unit = recipe.data.micro_batch_size * replicas
        yield found(
            warning(
                "pipeline-bubble",
                f"the stages wait {share:.0%} of each step with {number} microbatches: {enough} or more keep it "
                f"under {_BUBBLE:.0%}",
                recipe,
                _PIPELINE,
                _GLOBAL,
                _MICRO,
            ),
            around(_MICRO, recipe.data.micro_batch_size)[0],
            multiples(_GLOBAL, unit * enough - 1, unit)[1],
            around(_VIRTUAL, pieces, lowest=2, highest=recipe.model.language.num_layers)[1],
        )


pipeline_rules: tuple[Rule, ...] = (virtual_microbatches, bubble)
