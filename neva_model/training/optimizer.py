"""Megatron's optimizer, and the face of it that Lightning sees."""

from collections.abc import Callable
from typing import Any

import torch
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.optimizer import MegatronOptimizer, OptimizerConfig, get_megatron_optimizer
from megatron.core.transformer.module import Float16Module
from megatron.core.transformer.transformer_config import TransformerConfig

from neva_model.model import ModelChunks
from neva_recipes.config import Recipe

__all__ = ["OptimizerFacade", "build_optimizer", "wrap_data_parallel"]


def wrap_data_parallel(chunks: ModelChunks, recipe: Recipe) -> list[DistributedDataParallel]:
    """Wrap every chunk so that Megatron reduces its gradients over the data-parallel and context-parallel ranks."""
    parallel = recipe.parallel
    settings = DistributedDataParallelConfig(
        use_distributed_optimizer=parallel.use_distributed_optimizer,
        overlap_grad_reduce=parallel.overlap_grad_reduce,
        overlap_param_gather=parallel.overlap_param_gather,
        # The interleaved schedule gathers a chunk's weights while the chunk before it computes.
        align_param_gather=parallel.overlap_param_gather and len(chunks) > 1,
        grad_reduce_in_fp32=recipe.precision.grad_reduce_in_fp32,
        fp8_param_gather=recipe.precision.fp8_param,
    )
    return [
        DistributedDataParallel(
            chunk.config,
            settings,
            Float16Module(chunk.config, chunk) if chunk.config.bf16 else chunk,
            # As Megatron-LM: what later chunks send is hidden behind other chunks' work, so it need not be cut up.
            disable_bucketing=index > 0,
        )
        for index, chunk in enumerate(chunks)
    ]


def build_optimizer(chunks: list[DistributedDataParallel], recipe: Recipe) -> MegatronOptimizer:
    """Return Megatron's AdamW over the trainable parameters of this rank; a rank may have none.

    The first chunk's configuration, which Megatron's schedules read, is told how to scale and reduce.
    """
    optim = recipe.optim
    config: TransformerConfig = chunks[0].config
    optimizer = get_megatron_optimizer(
        OptimizerConfig(
            optimizer="adam",
            lr=optim.lr,
            min_lr=optim.min_lr,
            weight_decay=optim.weight_decay,
            adam_beta1=optim.adam_beta1,
            adam_beta2=optim.adam_beta2,
            adam_eps=optim.adam_eps,
            clip_grad=optim.clip_grad,
            bf16=recipe.precision.precision == "bf16",
            params_dtype=config.params_dtype,
            fp8_recipe=recipe.precision.fp8_recipe if recipe.precision.fp8 else None,
            use_distributed_optimizer=recipe.parallel.use_distributed_optimizer,
            overlap_param_gather=recipe.parallel.overlap_param_gather,
        ),
        chunks,
    )
    config.finalize_model_grads_func = finalize_model_grads
    config.grad_scale_func = optimizer.scale_loss
    if recipe.parallel.overlap_grad_reduce:
        no_sync = [chunk.no_sync for chunk in chunks]
        config.no_sync_func = no_sync if len(chunks) > 1 else no_sync[0]
    if recipe.parallel.overlap_param_gather and len(chunks) > 1:
        config.param_sync_func = [chunk.start_param_sync for chunk in chunks]
    return optimizer


class OptimizerFacade(torch.optim.Optimizer):
    """Megatron's optimizer as a torch optimizer.

    Lightning counts `global_step`, and so stops, saves, validates and schedules, by the steps of the optimizers it
    knows; schedulers act on `param_groups`. This optimizer holds one placeholder parameter, whose learning rate is
    handed to Megatron's groups before each step.

    Attributes:
        grad_norm: Global gradient norm of the last step, before clipping.
    """

    def __init__(self, optimizer: MegatronOptimizer, lr: float, weight_decay: float) -> None:
        """Show `optimizer` to Lightning with peak learning rate `lr`."""
        super().__init__([torch.nn.Parameter(torch.zeros(1))], {"lr": lr})
        self.megatron_optimizer = optimizer
        self.weight_decay = weight_decay
        self.grad_norm = 0.0

    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take one step with the gradients in Megatron's buffers.

        Raises:
            FloatingPointError: The gradients hold a not-a-number or an infinity.
        """
        for group in self.megatron_optimizer.param_groups:
            group["lr"] = self.param_groups[0]["lr"]
            group["weight_decay"] = self.weight_decay * group.get("wd_mult", 1.0)
        _, grad_norm, _ = self.megatron_optimizer.step()
        self.grad_norm = float(grad_norm or 0.0)
        if not torch.isfinite(torch.tensor(self.grad_norm)):
            raise FloatingPointError(f"gradient norm is {self.grad_norm}")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of the parameters (Megatron's buffers are cleared by the training step)."""
        self.megatron_optimizer.zero_grad(set_to_none)
