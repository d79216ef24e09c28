"""Initial weights of a model, part by part, from wherever `from_pretrained` points."""

from pathlib import Path

import torch
from megatron.core import parallel_state

from neva_model.checkpoints.digest import weights_digest
from neva_model.checkpoints.distributed import load_weights, sharding_metadata
from neva_model.checkpoints.huggingface import is_huggingface_directory, load_pretrained
from neva_model.checkpoints.information import check_same_model, read_information, resolve_checkpoint, saved_recipe
from neva_model.checkpoints.vocabulary import check_same_vocabulary
from neva_model.model import ModelChunks
from neva_model.tokenizers import Tokenizer
from neva_recipes.config import CheckpointError, Recipe

__all__ = ["load_initial_weights"]

_PARTS = ("language", "vision", "projector")


def load_initial_weights(chunks: ModelChunks, recipe: Recipe, tokenizer: Tokenizer | None = None) -> list[str]:
    """Fill the parts of a freshly built model whose `from_pretrained` is set.

    Args:
        chunks: This rank's part of the model.
        recipe: Where each part comes from: one of our runs or checkpoints, or a Hugging Face directory or hub name.
        tokenizer: What the language model is to be used with; none leaves that unchecked.

    Returns:
        Lines that say what was loaded from where.

    Raises:
        CheckpointError: A source is missing, damaged, of another shape than the recipe, or of another vocabulary.
    """
    lines = []
    for part in _PARTS:
        config = getattr(recipe.model, part)
        source = config.from_pretrained if config is not None else None
        if source is not None and _is_ours(source):
            checkpoint = resolve_checkpoint(source)
            if part == "language" and tokenizer is not None:
                check_same_vocabulary(checkpoint, read_information(checkpoint), tokenizer)
            lines.append(_load_part(chunks, recipe, part, checkpoint))
    said = [load_pretrained(chunk, recipe) for chunk in chunks]
    # Each chunk reads what it holds; they all say the same of where it comes from.
    return lines + said[0]


def _is_ours(source: str) -> bool:
    return Path(source).is_dir() and not is_huggingface_directory(Path(source))


def _load_part(chunks: ModelChunks, recipe: Recipe, part: str, checkpoint: Path) -> str:
    information = read_information(checkpoint)
    check_same_model(checkpoint, saved_recipe(checkpoint), recipe, (part,))
    # Every rank takes part in the load, though only the first pipeline stage has a projector and a vision tower.
    wanted = [chunk.part_sharded_state_dict(part, sharding_metadata()) for chunk in chunks]
    weights = load_weights(
        {f"{index}.{name}": shard for index, shards in enumerate(wanted) for name, shard in shards.items()}, checkpoint
    )
    for index, (chunk, shards) in enumerate(zip(chunks, wanted, strict=True)):
        module: torch.nn.Module | None = getattr(chunk, part)
        if module is not None:
            module.load_state_dict({name: weights[f"{index}.{name}"] for name in shards})
    line = f"{part}: loaded from {checkpoint} (step {information.step})"
    if part == "projector" and chunks.projector is not None and parallel_state.get_tensor_model_parallel_rank() == 0:
        digest = weights_digest(chunks.projector.state_dict())
        if digest != information.projector_digest:
            raise CheckpointError(
                f"{checkpoint}: the projector's digest is {digest}, the checkpoint says {information.projector_digest}"
            )
        line += f", {sum(weight.numel() for weight in chunks.projector.parameters()):,} parameters, {digest[:19]}"
    return line
