"""Rules that take a GPU to run: what Megatron-Core's configuration and source say of them."""

import dataclasses

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from megatron.core.fp8_utils import get_fp8_align_size
from megatron.core.transformer.transformer_config import TransformerConfig

from neva_recipes.config import PrecisionConfig, Recipe
from neva_recipes.plan import check_recipe
from tests.plan.against_core.recipes import text_recipe

# Errors of the plan that Core's configuration raises by itself.
CONFIGURATION = {"fp8-param", "fp8-edges-delayed", "fp8-edges", "recompute-norms-fp8"}


def codes(recipe: Recipe) -> set[str]:
    return {finding.code for finding in check_recipe(recipe) if finding.severity == "error"}


def gpu_recipe(**changes: object) -> Recipe:
    """Return a recipe for a GPU whose sizes FP8 takes; `precision__fp8` is `precision.fp8`."""
    sizes = {"hidden_size": 64, "ffn_hidden_size": 128, "num_attention_heads": 4, "num_query_groups": 4}
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return text_recipe(
        {f"model.language.{name}": size for name, size in sizes.items()}
        | {"precision.precision": "bf16", "trainer.accelerator": "gpu", "trainer.devices": None}
        | named
    )


def refusal(recipe: Recipe) -> str | None:
    """Return why Core's configuration refuses a recipe, taking fields of the same name as they are."""
    theirs = {field.name for field in dataclasses.fields(TransformerConfig)}
    values = {
        field.name: getattr(group, field.name)
        for group in (recipe.precision, recipe.parallel)
        for field in dataclasses.fields(group)
        if field.name in theirs
    }
    language, model = recipe.model.language, recipe.model
    try:
        TransformerConfig(
            num_layers=language.num_layers,
            hidden_size=language.hidden_size,
            num_attention_heads=language.num_attention_heads,
            pipeline_dtype=torch.bfloat16,
            recompute_granularity=model.recompute_granularity,
            recompute_modules=model.recompute_modules,
            **values,
        )
    except ValueError as error:
        return str(error)
    return None


@settings(max_examples=300, deadline=None)
@given(
    fp8=st.sampled_from([None, "hybrid", "e4m3"]),
    scaling=st.sampled_from(["delayed", "tensorwise", "blockwise", "mxfp8"]),
    weights=st.booleans(),
    edges=st.booleans(),
    start=st.integers(0, 4),
    end=st.integers(0, 4),
    stages=st.sampled_from([1, 2, 4]),
    norms=st.booleans(),
)
def test_what_the_configuration_refuses_is_an_error_of_the_plan(
    fp8: str | None, scaling: str, weights: bool, edges: bool, start: int, end: int, stages: int, norms: bool
) -> None:
    # Core asks for the version of Transformer Engine, and has no answer to there being none.
    assume(not (norms and fp8 and scaling != "delayed"))
    recipe = gpu_recipe(
        precision=PrecisionConfig(
            fp8=fp8,
            fp8_recipe=scaling,
            fp8_param=weights,
            first_last_layers_bf16=edges,
            num_layers_at_start_in_bf16=start,
            num_layers_at_end_in_bf16=end,
        ),
        parallel__pipeline_model_parallel_size=stages,
        model__recompute_granularity="selective" if norms else None,
        model__recompute_modules=["layernorm"] if norms else None,
    )
    said = refusal(recipe)
    assert (said is not None) == bool(codes(recipe) & CONFIGURATION), said


@pytest.mark.parametrize("scaling", ["delayed", "tensorwise", "blockwise", "mxfp8"])
@pytest.mark.parametrize("field", ["hidden_size", "ffn_hidden_size"])
def test_fp8_takes_the_sizes_that_core_pads_to(scaling: str, field: str) -> None:
    unit = get_fp8_align_size(scaling)
    found = {
        size: "fp8-sizes"
        in codes(
            gpu_recipe(
                precision=PrecisionConfig(fp8="hybrid", fp8_recipe=scaling),
                model__language__kv_channels=32,
                **{f"model__language__{field}": size},
            )
        )
        for size in range(64, 129, 4)
    }
    assert found == {size: size % unit != 0 for size in found}
