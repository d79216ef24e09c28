"""What one rank of a case does: build a recipe's model with Megatron-Core and take two optimizer steps."""

import os
import sys
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.models.vision.clip_vit_model import CLIPViTModel
from megatron.core.num_microbatches_calculator import ConstantNumMicroBatchesCalculator
from megatron.core.transformer.attention import SelfAttention
from megatron.core.transformer.mlp import MLP
from megatron.core.transformer.torch_norm import WrappedTorchNorm
from megatron.core.transformer.transformer_config import TransformerConfig
from transformers import PreTrainedModel

from neva_model.model import NevaModel
from neva_model.model.attention import SdpaCoreAttention
from neva_model.training.failures import Failures
from neva_model.training.module import NevaTrainingModule
from neva_model.training.strategy import MegatronStrategy
from neva_recipes.config import Recipe, VisionConfig
from tests.plan.against_core.samples import SyntheticData

__all__ = ["Measured", "train"]

STEPS = 2
_COLLECTIVE_TIMEOUT = timedelta(seconds=300)


@dataclass
class Measured:
    """What a rank saw.

    Attributes:
        losses: Loss of each step.
        grad_norms: Gradient norm of each step, over the whole model.
        forwards: How often the attention and the MLP of this rank's layers ran, all steps together.
        gathers_ahead: Whether Core was told to gather weights while the forward pass goes on, in pieces.
        layers: Number of this rank's layers.
        attention_widths: Widths of all heads of a layer together, over all tensor-parallel ranks.
        tokens_per_image: Positions that the tower's features take, on ranks that have one.
    """

    losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    forwards: int = 0
    gathers_ahead: bool = False
    layers: int = 0
    attention_widths: set[int] = field(default_factory=set)
    tokens_per_image: set[int] = field(default_factory=set)


class _Recorder(pl.Callback):
    def __init__(self, measured: Measured) -> None:
        self._measured = measured

    def on_train_start(self, trainer: pl.Trainer, pl_module: NevaTrainingModule) -> None:
        for module in pl_module.modules():
            if isinstance(module, (SdpaCoreAttention, MLP)):
                module.register_forward_pre_hook(self._count)
            if isinstance(module, SelfAttention):
                self._measured.layers += 1
                self._measured.attention_widths.add(module.query_projection_size)
            if isinstance(module, NevaModel) and module.vision is not None:
                vision = pl_module.recipe.model.vision
                self._measured.tokens_per_image.add(_tokens_per_image(module.vision, vision))
                if vision.vision_model_type == "clip":
                    _build_tower_of_core(vision)

            if isinstance(module, DistributedDataParallel) and module.remove_forward_pre_hook_handles:
                self._measured.gathers_ahead = module.ddp_config.bucket_size is not None

    def _count(self, *_: Any) -> None:
        self._measured.forwards += 1

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._measured.losses.append(float(trainer.callback_metrics["reduced_train_loss"]))
        self._measured.grad_norms.append(float(trainer.callback_metrics["grad_norm"]))


@torch.no_grad()
def _tokens_per_image(tower: PreTrainedModel, vision: VisionConfig) -> int:
    """Return how many features transformers makes of an image; it raises if it has no such hidden state."""
    image = torch.zeros(1, 3, vision.image_size, vision.image_size)
    features = tower(image, output_hidden_states=True).hidden_states[vision.vision_select_layer]
    without_class_token = vision.vision_model_type == "clip" and vision.vision_select_feature == "patch"
    return features.shape[1] - without_class_token


def _build_tower_of_core(vision: VisionConfig) -> None:
    """Build Core's own CLIP for such images, which it may refuse."""
    ranks = parallel_state.get_tensor_model_parallel_world_size()
    config = TransformerConfig(
        num_layers=1,
        hidden_size=8 * ranks,
        num_attention_heads=ranks,
        tensor_model_parallel_size=ranks,
        use_cpu_initialization=True,
    )
    spec = get_gpt_layer_local_spec()
    CLIPViTModel(
        config, spec, WrappedTorchNorm, patch_dim=vision.patch_size, img_h=vision.image_size, img_w=vision.image_size
    )


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
    module = NevaTrainingModule(recipe, "", STEPS, Failures(), resumed=None)
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
