"""Megatron's optimizer, and the face of it that Lightning sees."""

from collections.abc import Callable
from typing import Any

import torch
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
from megatron.core.optimizer import MegatronOptimizer, OptimizerConfig, get_megatron_optimizer
from megatron.core.transformer.transformer_config import TransformerConfig

from neva_recipes.config import Recipe

__all__ = ["OptimizerFacade", "build_optimizer", "wrap_data_parallel"]


def wrap_data_parallel(model: torch.nn.Module, config: TransformerConfig, recipe: Recipe) -> DistributedDataParallel:
    """Wrap a model so that Megatron accumulates and reduces its gradients over the data-parallel ranks."""
    parallel = recipe.parallel
    return DistributedDataParallel(
        config,
        DistributedDataParallelConfig(
            use_distributed_optimizer=parallel.use_distributed_optimizer,
            overlap_grad_reduce=parallel.overlap_grad_reduce,
            overlap_param_gather=parallel.overlap_param_gather,
            grad_reduce_in_fp32=recipe.precision.grad_reduce_in_fp32,
            fp8_param_gather=recipe.precision.fp8_param,
        ),
        model,
    )


def build_optimizer(model: DistributedDataParallel, config: TransformerConfig, recipe: Recipe) -> MegatronOptimizer:
    """Return Megatron's AdamW over the trainable parameters of this rank; a rank may have none."""
    optim = recipe.optim
    return get_megatron_optimizer(
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
        [model],
    )


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
