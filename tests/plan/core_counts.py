"""Builds every pipeline stage of many recipes in one process, which plays any rank of any layout, and counts.

The process group is torch's fake one: it does no communication and believes any rank and size. Prints one line of
JSON: for each recipe, for each of its stages, [weights, trained weights] of each part.
"""

import json
import random
import sys

import torch
from torch.testing._internal.distributed.fake_pg import FakeStore

from neva_model.model import build_model, cpu_compat
from neva_recipes.config import Recipe
from neva_recipes.plan import layout_of
from tests.plan.model_shapes import random_recipes

cpu_compat.install()

from megatron.core import parallel_state, tensor_parallel  # noqa: E402
from megatron.core.models.gpt import GPTModel  # noqa: E402
from megatron.core.transformer.transformer_block import (  # noqa: E402
    TransformerBlockSubmodules,
    get_num_layers_to_build,
)

from neva_model.model.layers import block_spec  # noqa: E402
from neva_model.model.transformer import transformer_config  # noqa: E402

Counts = dict[str, list[int]]


def stages(recipe: Recipe, generator: random.Random) -> list[Counts]:
    """Return the counts of each pipeline stage, on a rank of it drawn at random."""
    layout = layout_of(recipe)
    counts = []
    for stage in range(layout.pipeline_model_parallel_size):
        on_stage = [coordinates.rank for coordinates in layout.ranks if coordinates.pipeline == stage]
        torch.distributed.init_process_group(
            "fake", store=FakeStore(), rank=generator.choice(on_stage), world_size=layout.world_size
        )
        parallel_state.initialize_model_parallel(
            recipe.parallel.tensor_model_parallel_size,
            recipe.parallel.pipeline_model_parallel_size,
            recipe.parallel.virtual_pipeline_model_parallel_size,
            create_gloo_process_groups=False,
        )
        tensor_parallel.model_parallel_cuda_manual_seed(1)
        counts.append(_count(recipe))
        parallel_state.destroy_model_parallel()
        torch.distributed.destroy_process_group()
    return counts


def _count(recipe: Recipe) -> Counts:
    pieces = recipe.parallel.virtual_pipeline_model_parallel_size
    first = parallel_state.is_pipeline_first_stage(ignore_virtual=True)
    last = parallel_state.is_pipeline_last_stage(ignore_virtual=True)
    if pieces is None:
        model = build_model(recipe, pre_process=first, post_process=last)
        parts = {name: getattr(model, name) for name in ("language", "vision", "projector")}
        return {
            name: [
                sum(parameter.numel() for parameter in part.parameters()),
                sum(parameter.numel() for parameter in part.parameters() if parameter.requires_grad),
            ]
            for name, part in parts.items()
            if part is not None
        }
    # What Core itself puts on the virtual stages of the language model.
    total = sum(
        sum(parameter.numel() for parameter in _piece(recipe, piece, first, last).parameters())
        for piece in range(pieces)
    )
    return {"language": [total, 0 if recipe.model.language.freeze else total]}


def _piece(recipe: Recipe, piece: int, first: bool, last: bool) -> GPTModel:
    language, config = recipe.model.language, transformer_config(recipe)
    spec = block_spec(config)
    layers = [spec.layer_specs[0]] * get_num_layers_to_build(config, piece) if spec.layer_specs else []
    return GPTModel(
        config,
        TransformerBlockSubmodules(layer_specs=layers, layer_norm=spec.layer_norm),
        vocab_size=language.padded_vocab_size(recipe.parallel.tensor_model_parallel_size),
        max_sequence_length=language.max_position_embeddings,
        pre_process=first and piece == 0,
        post_process=last and piece == recipe.parallel.virtual_pipeline_model_parallel_size - 1,
        position_embedding_type="rope",
        share_embeddings_and_output_weights=language.share_embeddings_and_output_weights,
        vp_stage=piece,
    )


if __name__ == "__main__":
    seed, number = int(sys.argv[1]), int(sys.argv[2])
    drawn = random.Random(seed)
    print(json.dumps([stages(recipe, drawn) for recipe in random_recipes(seed, number)]))
