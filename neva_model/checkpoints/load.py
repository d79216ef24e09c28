"""Loads a trained model into one process, for chat and evaluation."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from neva_model.checkpoints.average import average_shards
from neva_model.checkpoints.distributed import load_weights, sharding_metadata
from neva_model.checkpoints.information import read_information, with_newest
from neva_model.checkpoints.vocabulary import recipe_with_tokenizer
from neva_model.model import NevaModel, build_model, initialize_model_parallel
from neva_model.tokenizers import Tokenizer
from neva_recipes.config import ParallelConfig, PrecisionConfig, Recipe, tokenizer_name

__all__ = ["LoadedModel", "initialize_single_process", "load_model"]


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode.

    Attributes:
        model: The whole model, on the GPU if there is one.
        recipe: The recipe it was trained with, with the layout set to one process.
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


def load_model(path: str | Path, tokenizer: str | None = None) -> LoadedModel:
    """Load a run's newest checkpoint, or a given checkpoint, into this process; averaged weights if it has them.

    If the run removes its checkpoint meanwhile, the next newest one is loaded.

    Args:
        path: The run or checkpoint.
        tokenizer: Where its tokenizer is now; `None` means where it was in training.

    Raises:
        CheckpointError: There is no such checkpoint, it is damaged, or its tokenizer has changed.
        DataError: Its tokenizer cannot be loaded.
    """
    return with_newest(path, lambda checkpoint: _load(checkpoint, tokenizer))


def _load(checkpoint: Path, tokenizer: str | None) -> LoadedModel:
    information = read_information(checkpoint)
    saved, words = recipe_with_tokenizer(checkpoint, information, tokenizer)
    initialize_single_process()
    recipe = _on_one_process(saved)
    model = build_model(recipe, pre_process=True, post_process=True)
    shards = model.sharded_state_dict(metadata=sharding_metadata())
    if information.has_average:
        averages = [parameter.detach() for parameter in model.parameters() if parameter.requires_grad]
        shards |= average_shards(model, averages)
    model.load_state_dict(load_weights(shards, checkpoint))
    if torch.cuda.is_available():
        model.to(device="cuda", dtype=model.config.params_dtype)
    model.eval()
    return LoadedModel(model, recipe, tokenizer_name(recipe), words, checkpoint)


def _on_one_process(recipe: Recipe) -> Recipe:
    """Return the recipe for one process, in a precision in which this machine can generate tokens: never FP8."""
    trainer = dataclasses.replace(recipe.trainer, num_nodes=1, devices=1)
    precision = PrecisionConfig(precision=recipe.precision.precision if torch.cuda.is_available() else "fp32")
    return dataclasses.replace(recipe, parallel=ParallelConfig(), trainer=trainer, precision=precision)
