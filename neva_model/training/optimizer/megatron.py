"""Megatron's optimizer, and the optimizer that Lightning sees in its place."""

from collections.abc import Callable
from typing import Any

import torch
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.optimizer import MegatronOptimizer, OptimizerConfig, get_megatron_optimizer
from megatron.core.transformer.module import Float16Module
from megatron.core.transformer.transformer_config import TransformerConfig

from neva_model.model import ModelChunks
from neva_model.training.optimizer.rates import has_own_rate, rate_overrides, scaled_rate
from neva_recipes.config import OptimConfig, Recipe

__all__ = ["OptimizerFacade", "build_optimizer", "wrap_data_parallel"]


def wrap_data_parallel(chunks: ModelChunks, recipe: Recipe) -> list[DistributedDataParallel]:
    """Wrap every chunk so that Megatron reduces its gradients over the data-parallel and context-parallel ranks."""
    parallel = recipe.parallel
    settings = DistributedDataParallelConfig(
        use_distributed_optimizer=parallel.use_distributed_optimizer,
        overlap_grad_reduce=parallel.overlap_grad_reduce,
        overlap_param_gather=parallel.overlap_param_gather,
        # The interleaved schedule gathers a chunk's weights while the previous chunk computes.
        align_param_gather=parallel.overlap_param_gather and len(chunks) > 1,
        grad_reduce_in_fp32=recipe.precision.grad_reduce_in_fp32,
        fp8_param_gather=recipe.precision.fp8_param,
    )
    return [
        DistributedDataParallel(
            chunk.config,
            settings,
            Float16Module(chunk.config, chunk) if chunk.config.bf16 else chunk,
            # As in Megatron-LM: other chunks' work hides the communication of later chunks, which needs no buckets.
            disable_bucketing=index > 0,
        )
        for index, chunk in enumerate(chunks)
    ]


def build_optimizer(chunks: list[DistributedDataParallel], recipe: Recipe) -> MegatronOptimizer:
    """Return Megatron's AdamW over the trainable parameters of this rank, which may have none.

    The first chunk's configuration, which Megatron's schedules read, receives the functions that scale and reduce.
    """
    optim = recipe.optim
    config: TransformerConfig = chunks[0].config
    settings = OptimizerConfig(
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
    )
    optimizer = get_megatron_optimizer(settings, chunks, rate_overrides(chunks, settings, optim))
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

    Lightning counts `global_step` by the steps of the optimizers it knows, and stops, saves, validates and schedules by
    it; schedulers act on `param_groups`. This optimizer holds one placeholder parameter, whose learning rate is passed
    to Megatron's groups before each step.

    Attributes:
        grad_norm: Global gradient norm of the last step, before clipping.
    """

    def __init__(self, optimizer: MegatronOptimizer, optim: OptimConfig) -> None:
        """Wrap `optimizer` with the settings of a recipe, which override those in a checkpoint's groups."""
        super().__init__([torch.nn.Parameter(torch.zeros(1))], {"lr": optim.lr})
        self.megatron_optimizer = optimizer
        self._optim = optim
        self.grad_norm = 0.0

    def load_megatron_state(self, state: dict[str, Any]) -> None:
        """Load the state of Megatron's optimizer; it may be that of a recipe with other learning rates."""
        # Core 0.19 finds a saved group by its highest and lowest rate too. `step` sets the rates that count.
        for group in state.get("optimizer", state).get("param_groups", ()):
            group["min_lr"] = self._optim.min_lr
            if not has_own_rate(group):
                group["max_lr"] = self._optim.lr
        self.megatron_optimizer.load_state_dict(state)

    def step(self, closure: Callable[[], object] | None = None) -> None:  # type: ignore[override]
        """Take one step with the gradients in Megatron's buffers."""
        for group in self.megatron_optimizer.param_groups:
            group["lr"] = scaled_rate(group, self.param_groups[0]["lr"], self._optim)
            group["weight_decay"] = self._optim.weight_decay * group.get("wd_mult", 1.0)
            group["betas"] = (self._optim.adam_beta1, self._optim.adam_beta2)
            group["eps"] = self._optim.adam_eps
        _, grad_norm, _ = self.megatron_optimizer.step()
        self.grad_norm = float(grad_norm or 0.0)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of the parameters; the training step clears Megatron's buffers."""
        self.megatron_optimizer.zero_grad(set_to_none)
