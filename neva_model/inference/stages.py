"""One step of a model that is divided over tensor- and pipeline-parallel ranks."""

import torch
from megatron.core import parallel_state
from megatron.core.inference.contexts import StaticInferenceContext

from neva_model.model import NevaModel

__all__ = ["agree", "run_stage"]


def run_stage(
    model: NevaModel, tokens: torch.Tensor, image_features: torch.Tensor | None, context: StaticInferenceContext
) -> torch.Tensor | None:
    """Run this rank's pipeline stage on the next tokens, which are added to the cache.

    Args:
        model: This rank's share of the model, without sequence parallelism.
        tokens: Tokens `[batch, length]` that follow those in the cache.
        image_features: Features of the images among them.
        context: The cache of this stage's layers.

    Returns:
        Logits `[batch, length, padded vocabulary]` on the last stage; `None` on the others.
    """
    batch, length = tokens.shape
    start = context.sequence_len_offset
    positions = torch.arange(start, start + length, device=tokens.device).expand(batch, length)
    rank, neighbours = torch.distributed.get_rank(), parallel_state.get_tensor_model_parallel_world_size()
    if not model.pre_process:
        parameter = next(model.parameters())
        hidden = parameter.new_empty(length, batch, model.config.hidden_size)
        torch.distributed.recv(hidden, rank - neighbours)
        model.set_input_tensor(hidden)
    output: torch.Tensor = model(tokens, positions, image_features=image_features, inference_context=context)
    context.increment_sequence_len_offset(length)
    if model.post_process:
        return output
    torch.distributed.send(output.contiguous(), rank + neighbours)
    return None


def agree(chosen: torch.Tensor | None, batch: int, device: torch.device) -> torch.Tensor:
    """Return the tokens that the first rank of the last pipeline stage has chosen, on every rank.

    Args:
        chosen: The tokens of a rank of the last stage `[batch]`; `None` on other ranks.
        batch: Number of rows.
        device: Where the tokens belong.
    """
    tensor_parallel = parallel_state.get_tensor_model_parallel_world_size()
    stages = parallel_state.get_pipeline_model_parallel_world_size()
    if chosen is None:
        chosen = torch.empty(batch, dtype=torch.long, device=device)
    if tensor_parallel * stages > 1:
        torch.distributed.broadcast(chosen, src=(stages - 1) * tensor_parallel)
    return chosen
