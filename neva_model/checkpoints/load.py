"""Loads a trained model for chat, evaluation and generation, into one process or divided over several."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from megatron.core import parallel_state

from neva_model.checkpoints.average import average_shards
from neva_model.checkpoints.distributed import load_weights, sharding_metadata
from neva_model.checkpoints.information import CheckpointInformation, SavedAdapters, read_information, with_newest
from neva_model.checkpoints.layout import require_layout
from neva_model.checkpoints.vocabulary import recipe_with_tokenizer
from neva_model.model import ModelChunks, NevaModel, build_model, initialize_model_parallel
from neva_model.model.adapters import kept_shards
from neva_model.tokenizers import Tokenizer
from neva_recipes.config import ParallelConfig, PrecisionConfig, Recipe, tokenizer_name

__all__ = ["LoadedModel", "build_saved", "divided", "initialize_single_process", "load_model", "own_share"]

_WHOLE = ParallelConfig()
"""The layout of a model that is whole in one process."""


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode.

    Attributes:
        model: The model, or this rank's share of it, on the GPU if there is one.
        recipe: The recipe it was trained with, with the layout that it has here.
        tokenizer: Directory or name of its tokenizer.
        words: The tokenizer, if it was loaded to check it; `None` if the checkpoint has nothing to check it against.
        source: The checkpoint it was loaded from.
    """

    model: NevaModel
    recipe: Recipe
    tokenizer: str
    words: Tokenizer | None
    source: Path


def initialize_single_process() -> None:
    """Create the process groups of a world of one process, which Megatron's modules need."""
    if torch.distributed.is_initialized():
        return
    store = torch.distributed.HashStore()
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    initialize_model_parallel(ParallelConfig(), seed=1234)


def load_model(path: str | Path, tokenizer: str | None = None, parallel: ParallelConfig = _WHOLE) -> LoadedModel:
    """Load a run's newest checkpoint, or a given checkpoint; averaged weights if it has them.

    If the run removes its checkpoint meanwhile, the next newest one is loaded.

    Args:
        path: The run or checkpoint.
        tokenizer: Where its tokenizer is now; `None` means where it was in training.
        parallel: How the model is divided over the processes, whose groups then exist already.

    Raises:
        CheckpointError: There is no such checkpoint, it is damaged, or its tokenizer has changed.
        DataError: Its tokenizer cannot be loaded.
    """
    return with_newest(path, lambda checkpoint: _load(checkpoint, tokenizer, parallel))


def _load(checkpoint: Path, tokenizer: str | None, parallel: ParallelConfig) -> LoadedModel:
    information = read_information(checkpoint)
    saved, words = recipe_with_tokenizer(checkpoint, information, tokenizer)
    model, recipe = build_saved(checkpoint, saved, information, parallel)
    return LoadedModel(model, recipe, tokenizer_name(recipe), words, checkpoint)


def build_saved(
    checkpoint: Path, saved: Recipe, information: CheckpointInformation, parallel: ParallelConfig = _WHOLE
) -> tuple[NevaModel, Recipe]:
    """Return this rank's share of the model of a checkpoint in evaluation mode, and the recipe for the layout.

    Args:
        checkpoint: The checkpoint.
        saved: Its recipe.
        information: Its information.
        parallel: The layout.

    Raises:
        CheckpointError: It is damaged.
    """
    initialize_single_process()
    recipe = divided(saved, parallel)
    model = own_share(recipe)
    if recipe.model.is_saved_in_part:
        from neva_model.checkpoints.pretrained import load_initial_weights

        load_initial_weights(ModelChunks([model]), recipe, resumed=SavedAdapters(checkpoint, information))
    shards = kept_shards(model.sharded_state_dict(metadata=sharding_metadata()), recipe.model)
    if information.has_average:
        averages = [parameter.detach() for parameter in model.parameters() if parameter.requires_grad]
        shards |= average_shards(model, averages)
    model.load_state_dict(load_weights(shards, checkpoint), strict=not recipe.model.is_saved_in_part)
    if torch.cuda.is_available():
        model.to(device="cuda", dtype=model.config.params_dtype)
    return model.eval(), recipe


def divided(recipe: Recipe, parallel: ParallelConfig) -> Recipe:
    """Return the recipe for a layout, in a precision in which this machine can generate tokens: never FP8.

    Raises:
        RecipeError: The layout does not divide the model.
    """
    processes = parallel.tensor_model_parallel_size * parallel.pipeline_model_parallel_size
    trainer = dataclasses.replace(recipe.trainer, num_nodes=1, devices=processes)
    precision = PrecisionConfig(precision=recipe.precision.precision if torch.cuda.is_available() else "fp32")
    here = dataclasses.replace(recipe, parallel=parallel, trainer=trainer, precision=precision)
    if processes > 1:
        require_layout(here)
    return here


def own_share(recipe: Recipe) -> NevaModel:
    """Return this rank's share of a recipe's model with its initial weights."""
    return build_model(
        recipe,
        pre_process=parallel_state.is_pipeline_first_stage(),
        post_process=parallel_state.is_pipeline_last_stage(),
    )
