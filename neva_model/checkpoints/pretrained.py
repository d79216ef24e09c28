"""Initial weights of a model, part by part, from the sources that `from_pretrained` names."""

from pathlib import Path

import torch
from megatron.core import parallel_state

from neva_model.checkpoints.base import with_base
from neva_model.checkpoints.digest import weights_digest
from neva_model.checkpoints.distributed import load_weights, sharding_metadata
from neva_model.checkpoints.huggingface import is_huggingface_directory
from neva_model.checkpoints.huggingface.pretrained import load_pretrained
from neva_model.checkpoints.information import (
    SavedAdapters,
    check_same_model,
    is_gone,
    read_information,
    resolve_checkpoint,
    saved_recipe,
)
from neva_model.checkpoints.vocabulary import check_same_vocabulary
from neva_model.model import ModelChunks
from neva_model.model.adapters import quantize_language
from neva_model.tokenizers import Tokenizer
from neva_recipes.config import CheckpointError, Recipe, UserError
from neva_recipes.plan.origins.checkpoints import PARTS

__all__ = ["load_initial_weights"]


def load_initial_weights(
    chunks: ModelChunks,
    recipe: Recipe,
    tokenizer: Tokenizer | None = None,
    *,
    resumed: SavedAdapters | None = None,
) -> list[str]:
    """Fill the parts of a freshly built model whose `from_pretrained` names weights.

    Args:
        chunks: This rank's part of the model.
        recipe: Names the source of each part: one of our runs or checkpoints, or a Hugging Face directory or hub name.
        tokenizer: The tokenizer that the language model will be used with; `None` leaves it unchecked.
        resumed: A checkpoint of adapters that will be loaded then; only the weights that they were
            trained beside are loaded. `None` if there is none.

    Returns:
        Lines that say what was loaded from where.

    Raises:
        CheckpointError: A source is missing, damaged, of another shape than the recipe, or of another vocabulary.
    """
    lines = []
    recipe = recipe if resumed is None else with_base(recipe, resumed)
    for part in PARTS:
        config = getattr(recipe.model, part)
        source = config.source if config is not None else None
        if source is not None and _is_ours(source):
            checkpoint = _agreed_checkpoint(source)
            try:
                if part == "language" and tokenizer is not None:
                    check_same_vocabulary(checkpoint, read_information(checkpoint), recipe, tokenizer)
                lines.append(_load_part(chunks, recipe, part, checkpoint))
            except UserError:
                if not is_gone(checkpoint, source):
                    raise
                raise CheckpointError(
                    f"{checkpoint}: was removed by its run, which goes on, while it was loaded: name a checkpoint that "
                    f"stays in model.{part}.from_pretrained, or wait until the run has ended"
                ) from None
    said = [load_pretrained(chunk, recipe, tokenizer) for chunk in chunks]
    lines += _settle(chunks, recipe, is_resumed=resumed is not None)
    # Each chunk reads what it holds; the lines about the source are the same for all chunks.
    return lines + said[0]


def _settle(chunks: ModelChunks, recipe: Recipe, *, is_resumed: bool) -> list[str]:
    """Quantize weights that are there now, and set the adapters beside them; return lines about what was loaded."""
    for chunk in chunks:
        quantize_language(chunk.language, recipe.model.language)
        for adapters in (chunk.language_adapters, chunk.vision_adapters):
            if adapters is not None:
                adapters.initialize_lengths()
    if is_resumed or not recipe.model.has_adapters:
        return []
    from neva_model.checkpoints.adapters.loading import load_initial_adapters

    return load_initial_adapters(chunks, recipe)


def _is_ours(source: str) -> bool:
    return Path(source).is_dir() and not is_huggingface_directory(Path(source))


def _agreed_checkpoint(source: str) -> Path:
    """Return the checkpoint that rank 0 finds, since a run that goes on may have a newer one a moment later.

    Raises:
        CheckpointError: There is none; raised on every rank.
    """
    found: list[Path | CheckpointError | None] = [None]
    if torch.distributed.get_rank() == 0:
        try:
            found = [resolve_checkpoint(source)]
        except CheckpointError as error:
            found = [error]
    torch.distributed.broadcast_object_list(found, src=0)
    if isinstance(found[0], CheckpointError):
        raise found[0]
    assert found[0] is not None
    return found[0]


def _load_part(chunks: ModelChunks, recipe: Recipe, part: str, checkpoint: Path) -> str:
    information = read_information(checkpoint)
    check_same_model(checkpoint, saved_recipe(checkpoint), recipe, (part,))
    # Every rank must take part in the load, though only the first pipeline stage has a projector and a vision tower.
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
