"""A Lightning strategy that leaves gradients, optimizer and checkpoints to Megatron-Core."""

import dataclasses
import signal
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from megatron.core import parallel_state

from neva_model.checkpoints.io import DistributedCheckpointIO
from neva_model.model import initialize_model_parallel
from neva_model.training.environment import RankEnvironment
from neva_recipes.config import ParallelConfig
from neva_recipes.run_directory.metrics import VAL_LOSS, VAL_PERPLEXITY

__all__ = ["MegatronStrategy"]

_COLLECTIVE_TIMEOUT = timedelta(minutes=30)


class MegatronStrategy(DDPStrategy):
    """Runs one process per rank with Megatron's process groups instead of torch's DistributedDataParallel."""

    def __init__(self, parallel: ParallelConfig, seed: int, accelerator: str) -> None:
        """Use NCCL on GPUs and gloo on CPU.

        Args:
            parallel: The layout.
            seed: Seed of Megatron's random states.
            accelerator: `gpu` or `cpu`.
        """
        super().__init__(
            cluster_environment=RankEnvironment(),
            checkpoint_io=DistributedCheckpointIO(),
            process_group_backend="nccl" if accelerator == "gpu" else "gloo",
            timeout=_COLLECTIVE_TIMEOUT,
        )
        self._parallel = parallel
        self._seed = seed

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Restore after the model and the optimizer exist, since the sharded state is loaded into them."""
        return True

    def setup_environment(self) -> None:
        """Create the process groups."""
        super().setup_environment()
        initialize_model_parallel(self._parallel, self._seed)

    def on_train_start(self) -> None:
        """Let SIGTERM end this rank at once.

        Lightning's handler would start its own collective in the middle of another one and mix up the data that ranks
        exchange. Nothing is lost: a checkpoint is written completely or not at all.
        """
        super().on_train_start()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def configure_ddp(self) -> None:
        """Do nothing: the module wraps its model in Megatron's DistributedDataParallel."""

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return nothing: the weights are saved sharded."""
        return {}

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return nothing: the optimizer is saved sharded."""
        return {}

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        """Save Lightning's state, the weights and the optimizer; every rank must call this.

        Args:
            checkpoint: Lightning's state.
            filepath: The checkpoint's directory.
            storage_options: Fields to change in the `CheckpointInformation`, by name.
        """
        module: Any = self.lightning_module
        state = module.sharded_state()
        information = dataclasses.replace(state["information"], **(storage_options or {}))
        if information.validation == "due":
            # The known val_loss belongs to an earlier step.
            known = {
                name: value
                for name, value in information.metrics.items()
                if not name.startswith((VAL_LOSS, VAL_PERPLEXITY))
            }
            information = dataclasses.replace(information, metrics=known)
        state["information"] = information
        self.checkpoint_io.save_checkpoint({"lightning": checkpoint, **state}, filepath)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Load the weights and the optimizer in place and return Lightning's state."""
        module: Any = self.lightning_module
        return module.load_sharded_state(checkpoint_path)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, object]) -> None:
        """Do nothing: `load_checkpoint` has loaded the optimizer."""

    def load_model_state_dict(self, checkpoint: Mapping[str, object], strict: bool = True) -> None:
        """Do nothing: `load_checkpoint` has loaded the weights."""

    def teardown(self) -> None:
        """Close the process groups; the model stays on its device.

        Lightning's own teardown would copy it into the machine's memory, which may be too small for the models of all
        GPUs.
        """
        self.precision_plugin.teardown()
        assert self.accelerator is not None and self.cluster_environment is not None
        self.accelerator.teardown()
        self.checkpoint_io.teardown()
        self.cluster_environment.teardown()
        parallel_state.destroy_model_parallel()
