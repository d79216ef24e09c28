"""What one rank of a case does: build a recipe's model with Megatron-Core and take two optimizer steps."""

import os
import sys
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from megatron.core.distributed import DistributedDataParallel
from megatron.core.num_microbatches_calculator import ConstantNumMicroBatchesCalculator
from megatron.core.transformer.attention import SelfAttention
from megatron.core.transformer.mlp import MLP

from neva_model.model.attention import SdpaCoreAttention
from neva_model.training.module import NevaTrainingModule
from neva_model.training.strategy import MegatronStrategy
from neva_recipes.config import Recipe
from tests.plan.against_core.samples import SyntheticData

__all__ = ["Measured", "train"]

STEPS = 2
_COLLECTIVE_TIMEOUT = timedelta(seconds=30)


@dataclass
class Measured:
    """What a rank saw.

    Attributes:
        losses: Loss of each step.
        grad_norms: Gradient norm of each step, over the whole model.
        forwards: How often the attention and the MLP of this rank's layers ran, all steps together.
        gathers_ahead: Whether Core was told to gather weights while the forward pass goes on, in pieces.
        attention_widths: Widths of all heads of a layer together, over all tensor-parallel ranks.
    """

    losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    forwards: int = 0
    gathers_ahead: bool = False
    attention_widths: set[int] = field(default_factory=set)


class _Recorder(pl.Callback):
    def __init__(self, measured: Measured) -> None:
        self._measured = measured

    def on_train_start(self, trainer: pl.Trainer, pl_module: NevaTrainingModule) -> None:
        for module in pl_module.modules():
            if isinstance(module, (SdpaCoreAttention, MLP)):
                module.register_forward_pre_hook(self._count)
            if isinstance(module, SelfAttention):
                self._measured.attention_widths.add(module.query_projection_size)

            if isinstance(module, DistributedDataParallel) and module.remove_forward_pre_hook_handles:
                self._measured.gathers_ahead = module.ddp_config.bucket_size is not None

    def _count(self, *_: Any) -> None:
        self._measured.forwards += 1

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._measured.losses.append(float(trainer.callback_metrics["reduced_train_loss"]))
        self._measured.grad_norms.append(float(trainer.callback_metrics["grad_norm"]))


def train(recipe: Recipe, rank: int, world_size: int, directory: Path) -> Measured:
    """Train in this process as one rank of `world_size`; the ranks meet through a file in `directory`."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size), "NODE_RANK": "0"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "GLOO_SOCKET_IFNAME": "lo"}
    # Lightning takes the process group that is there, so no two cases need different ports.
    store = torch.distributed.FileStore(str(directory / "store"), world_size)
    torch.distributed.init_process_group(
        "gloo", store=store, rank=rank, world_size=world_size, timeout=_COLLECTIVE_TIMEOUT
    )
    parallel, data = recipe.parallel, recipe.data
    replica = (
        parallel.tensor_model_parallel_size * parallel.pipeline_model_parallel_size * parallel.context_parallel_size
    )
    ConstantNumMicroBatchesCalculator(
        data.global_batch_size, data.micro_batch_size, max(1, world_size // replica), False, rank
    )
    pl.seed_everything(recipe.trainer.seed, verbose=False)
    measured = Measured()
    module = NevaTrainingModule(recipe, "", STEPS)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=world_size,
        strategy=MegatronStrategy(parallel, recipe.trainer.seed, "cpu"),
        max_steps=STEPS,
        max_epochs=-1,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        callbacks=[_Recorder(measured)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
        use_distributed_sampler=False,
        default_root_dir=directory,
    )
    trainer.fit(module, datamodule=SyntheticData(recipe, STEPS))
    sys.stdout.flush()
    return measured
