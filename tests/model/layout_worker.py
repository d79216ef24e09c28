"""One rank of the layout tests: builds, loads and differentiates the same model under several layouts."""

import os
import sys
from functools import partial
from pathlib import Path

import torch

from neva_model.startup import prepare_process
from neva_recipes.config import RopeConfig

TENSOR = {"tensor_model_parallel_size": 2}
PIPELINE = {"pipeline_model_parallel_size": 2}
CONTEXT = {"context_parallel_size": 2}
SEQUENCE = {**TENSOR, "sequence_parallel": True}
INTERLEAVED = {**PIPELINE, "virtual_pipeline_model_parallel_size": 2}
LAYOUTS = {
    "TP2": TENSOR,
    "PP2": PIPELINE,
    "TP2 PP2": {**TENSOR, **PIPELINE},
    "TP2 SP": SEQUENCE,
    "TP4": {"tensor_model_parallel_size": 4},
    "PP2 3+1": {**PIPELINE, "num_layers_in_first_pipeline_stage": 3},
    "PP2 1+3": {**PIPELINE, "num_layers_in_last_pipeline_stage": 3},
    "PP2 VP2": INTERLEAVED,
    "TP2 SP PP2 VP2": {**SEQUENCE, **INTERLEAVED},
    "CP2": CONTEXT,
    "CP2 a2a": {**CONTEXT, "cp_comm_type": "a2a"},
    "CP4": {"context_parallel_size": 4, "cp_comm_type": "all_gather"},
    "CP2 TP2": {**CONTEXT, **TENSOR},
    "CP2 TP2 SP": {**CONTEXT, **SEQUENCE},
    "CP2 PP2": {**CONTEXT, **PIPELINE},
    "CP2 PP2 VP2": {**CONTEXT, **INTERLEAVED},
}
STRETCHED = {
    "yarn": {"factor": 4.0},
    "longrope": {"short_factor": [1.0, 1.2, 1.4, 1.6], "long_factor": [1.0, 2.0, 4.0, 8.0]},
}
"""Kinds of rotary positions, for rows of 8, 16 and 24 tokens."""


def cases(directory):
    """Yield name and recipe changes of every model that is compared over layouts.

    Args:
        directory: Holds a LLaVA of transformers under `llava` and a run of ours under `run`.
    """
    from model_cases import DINOV2

    yield "finetune", {"model.vision.freeze": True}
    yield "pretrain", {"model.vision.freeze": True, "model.language.freeze": True}
    yield "all trained", {"model.vision.freeze": False, "model.language.share_embeddings_and_output_weights": True}
    yield "bf16", {"model.vision.freeze": False, "precision.precision": "bf16"}
    yield (
        "imported",
        {f"model.{part}.from_pretrained": f"{directory}/llava" for part in ("language", "vision", "projector")}
        | {"model.use_im_start_end": True, "model.language.vocab_size": 102},
    )
    yield "dinov2", {**DINOV2, "model.vision.freeze": False, "model.vision.position_image_size": 70}
    yield "qwen2", {"model.language.family": "qwen2"}
    yield "qwen3", {"model.language.family": "qwen3"}
    yield "mistral", {"model.language.family": "mistral", "model.language.sliding_window": 6}
    for kind, numbers in STRETCHED.items():
        yield kind, {"model.language.rope": RopeConfig(kind=kind, original_max_position_embeddings=16, **numbers)}
    yield "from a run", {f"model.{part}.from_pretrained": f"{directory}/run" for part in ("language", "projector")}


def microbatches(batch):
    """Three images over two rows, one, two, and none: they do not divide evenly over the ranks.

    The last has no image, because Megatron then waits for the gradient of every trained weight.
    """
    rows = [([1, 2], 24, 1), ([1, 0], 16, 3), ([1, 1], 24, 4), ([0, 0], 8, 2)]
    return [batch(images, length, seed=seed) for images, length, seed in rows]


def _forward_step(batches, model):
    from neva_model.model import own_positions

    case = next(batches)
    labels = own_positions(case["labels"], 1)
    output = model(tokens=case["tokens"], position_ids=case["position_ids"], images=case["images"], labels=labels)
    return output, partial(_sum, labels)


def _sum(labels, losses):
    tokens = (labels != -100).sum().int()
    return losses.sum(), tokens, {"losses": losses.detach().clone()}


def measure(recipe, overlap):
    """Return per-token losses (on last stages), and this rank's weights and gradients under global names."""
    from megatron.core import parallel_state
    from megatron.core.distributed import (
        DistributedDataParallel,
        DistributedDataParallelConfig,
        finalize_model_grads,
    )
    from megatron.core.pipeline_parallel import get_forward_backward_func
    from megatron.core.transformer.module import Float16Module
    from model_cases import batch

    from neva_model.checkpoints.pretrained import load_initial_weights
    from neva_model.model import build_chunks, global_parameters

    chunks = build_chunks(recipe)
    load_initial_weights(chunks, recipe)
    settings = DistributedDataParallelConfig(
        overlap_grad_reduce=overlap, bucket_size=2000 if overlap else None, grad_reduce_in_fp32=True
    )
    wrapped = []
    for model in chunks:
        module = Float16Module(model.config, model) if model.config.bf16 else model
        wrapped.append(DistributedDataParallel(model.config, settings, module))
    config = wrapped[0].config
    config.finalize_model_grads_func = finalize_model_grads
    if overlap:
        no_sync = [chunk.no_sync for chunk in wrapped]
        config.no_sync_func = no_sync if len(no_sync) > 1 else no_sync[0]
    outputs = get_forward_backward_func()(
        forward_step_func=_forward_step,
        data_iterator=[iter(microbatches(batch)) for _ in wrapped],
        model=wrapped,
        num_microbatches=4,
        seq_length=20,
        micro_batch_size=2,
        forward_only=False,
    )
    names = []
    for model in chunks:
        names += [(f"language.{name}", parameter) for name, parameter in global_parameters(model.language)]
        for part in ("vision", "projector"):
            module = getattr(model, part)
            names += [(f"{part}.{name}", parameter) for name, parameter in module.named_parameters()] if module else []
    return {
        "losses": [output["losses"] for output in outputs],
        "tensors": {
            name: (
                parameter.detach().clone(),
                parameter.main_grad.clone() if parameter.requires_grad else None,
                parameter.partition_dim if getattr(parameter, "tensor_model_parallel", False) else None,
            )
            for name, parameter in names
        },
        "tensor rank": parallel_state.get_tensor_model_parallel_rank(),
        "context rank": parallel_state.get_context_parallel_rank(),
        "data rank": parallel_state.get_data_parallel_rank(),
        "stage": parallel_state.get_pipeline_model_parallel_rank(),
    }


def draws():
    """Return what dropout would draw where tensor-parallel ranks hold the same, and where each holds its own."""
    from megatron.core.tensor_parallel import get_cuda_rng_tracker

    shared = torch.rand(4)
    with get_cuda_rng_tracker().fork():
        return {"shared": shared, "own": torch.rand(4)}


def main():
    prepare_process()
    from megatron.core import parallel_state
    from model_cases import changed, llava_recipe

    from neva_model.model import initialize_model_parallel

    directory, output = sys.argv[1], Path(sys.argv[2])
    rank = int(os.environ["RANK"])
    results = {}
    for number, (layout, fields) in enumerate(LAYOUTS.items()):
        # Ranks that meet in a file need no port that is free. Each layout begins anew, for the groups of all layouts
        # together would keep hundreds of threads.
        meeting = f"file://{output}/ranks-{number}"
        torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=4)
        recipe = changed(llava_recipe(), {f"parallel.{name}": value for name, value in fields.items()})
        initialize_model_parallel(recipe.parallel, seed=1234)
        results[layout, "draws"] = draws()
        for case, changes in cases(directory):
            results[layout, case] = measure(changed(recipe, changes), overlap=layout in ("TP2", "CP2 PP2 VP2"))
        parallel_state.destroy_model_parallel()
        torch.distributed.destroy_process_group()
    torch.save(results, output / f"rank-{rank}.pt")


if __name__ == "__main__":
    main()
