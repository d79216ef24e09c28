"""One rank of the layout tests: builds, loads and differentiates the same model under several layouts."""

import os
import sys
from functools import partial
from pathlib import Path

import torch

LAYOUTS = {
    "TP2": (2, 1, False),
    "PP2": (1, 2, False),
    "TP2 PP2": (2, 2, False),
    "TP2 SP": (2, 1, True),
    "TP4": (4, 1, False),
}


def cases(directory):
    """Yield name and recipe changes of every model that is compared over layouts."""
    yield "finetune", {"model.vision.freeze": True}
    yield "pretrain", {"model.vision.freeze": True, "model.language.freeze": True}
    yield "all trained", {"model.vision.freeze": False, "model.language.share_embeddings_and_output_weights": True}
    yield "bf16", {"model.vision.freeze": False, "precision.precision": "bf16"}
    yield (
        "imported",
        {f"model.{part}.from_pretrained": directory for part in ("language", "vision", "projector")}
        | {"model.use_im_start_end": True, "model.language.vocab_size": 102},
    )


def microbatches(batch):
    """Three images over two rows, one image, and none: they do not divide evenly over the ranks.

    The last has no image, because Megatron then waits for the gradient of every trained weight.
    """
    return [batch([1, 2], 20, seed=1), batch([1, 0], 16, seed=3), batch([0, 0], 12, seed=2)]


def _forward_step(batches, model):
    case = next(batches)
    output = model(
        tokens=case["tokens"], position_ids=case["position_ids"], images=case["images"], labels=case["labels"]
    )
    return output, partial(_sum, case["labels"])


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

    from neva_model.checkpoints.huggingface import load_pretrained
    from neva_model.model import build_model, global_parameters

    first, last = parallel_state.is_pipeline_first_stage(), parallel_state.is_pipeline_last_stage()
    model = build_model(recipe, pre_process=first, post_process=last)
    load_pretrained(model, recipe)
    settings = DistributedDataParallelConfig(
        overlap_grad_reduce=overlap, bucket_size=2000 if overlap else None, grad_reduce_in_fp32=True
    )
    module = Float16Module(model.config, model) if model.config.bf16 else model
    wrapped = DistributedDataParallel(model.config, settings, module)
    model.config.finalize_model_grads_func = finalize_model_grads
    if overlap:
        model.config.no_sync_func = wrapped.no_sync
    outputs = get_forward_backward_func()(
        forward_step_func=_forward_step,
        data_iterator=iter(microbatches(batch)),
        model=wrapped,
        num_microbatches=3,
        seq_length=20,
        micro_batch_size=2,
        forward_only=False,
    )
    names = [(f"language.{name}", parameter) for name, parameter in global_parameters(model.language)]
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
        "data rank": parallel_state.get_data_parallel_rank(),
        "stage": parallel_state.get_pipeline_model_parallel_rank(),
    }


def main():
    from model_cases import changed, llava_recipe

    from neva_model.model import cpu_compat

    cpu_compat.install()
    from megatron.core import parallel_state, tensor_parallel

    directory, output = sys.argv[1], Path(sys.argv[2])
    torch.distributed.init_process_group("gloo")
    results = {}
    for layout, (tensor, pipeline, sequence) in LAYOUTS.items():
        parallel_state.initialize_model_parallel(tensor, pipeline)
        tensor_parallel.model_parallel_cuda_manual_seed(1234)
        for case, changes in cases(directory):
            recipe = changed(
                llava_recipe(changes),
                {
                    "trainer.devices": 4,
                    "parallel.tensor_model_parallel_size": tensor,
                    "parallel.pipeline_model_parallel_size": pipeline,
                }
                | ({"parallel.sequence_parallel": True} if sequence else {}),
            )
            results[layout, case] = measure(recipe, overlap=layout == "TP2")
        parallel_state.destroy_model_parallel()
    torch.save(results, output / f"rank-{os.environ['RANK']}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
