"""From a recipe to a finished training run."""

import math
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler

from neva_model.checkpoints.distributed import newest_checkpoint, remove_incomplete
from neva_model.checkpoints.information import checkpoint_name, read_information
from neva_model.training.average import AverageWeights
from neva_model.training.checkpointer import Checkpointer
from neva_model.training.data import TrainingData
from neva_model.training.loggers import build_loggers
from neva_model.training.module import NevaTrainingModule
from neva_model.training.progress import ProgressLines
from neva_model.training.strategy import MegatronStrategy
from neva_recipes.config import Recipe, RunError, TrainerConfig
from neva_recipes.plan import layout_of

__all__ = ["accelerator_of", "train"]

_PROFILERS: dict[str, type[Profiler]] = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}


def accelerator_of(config: TrainerConfig) -> str:
    """Return `gpu` or `cpu`, what this process trains on.

    Raises:
        RunError: A GPU is asked for and there is none.
    """
    if config.accelerator == "gpu" and not torch.cuda.is_available():
        raise RunError("trainer.accelerator=gpu but torch sees no GPU here; use auto or cpu")
    return "gpu" if config.accelerator != "cpu" and torch.cuda.is_available() else "cpu"


def train(recipe: Recipe, recipe_yaml: str, run_directory: Path) -> bool:
    """Train, from the run's newest checkpoint if it has one.

    Args:
        recipe: What to train.
        recipe_yaml: The same as text.
        run_directory: Where metrics and checkpoints go.

    Returns:
        Whether training is finished; if not, it was stopped on request.
    """
    layout, accelerator = layout_of(recipe), accelerator_of(recipe.trainer)
    checkpoints = run_directory / "checkpoints"
    checkpoint = newest_checkpoint(checkpoints)
    resumed_step = read_information(checkpoint).step if checkpoint else 0
    data = TrainingData(recipe, run_directory, accelerator)
    # Every rank reads the file before it waits for another: a long file must not run into a timeout.
    num_samples, global_batch_size = data.num_samples, recipe.data.global_batch_size
    max_steps = recipe.trainer.max_steps or math.ceil(
        (recipe.trainer.max_epochs or 1) * num_samples / global_batch_size
    )
    module = NevaTrainingModule(recipe, recipe_yaml, max_steps)
    data.module = module
    checkpointer = Checkpointer(checkpoints, recipe.checkpoint)
    pl.seed_everything(recipe.trainer.seed, verbose=False)
    trainer = pl.Trainer(
        accelerator=accelerator,
        devices=layout.processes_per_node,
        num_nodes=layout.num_nodes,
        strategy=MegatronStrategy(recipe.parallel, recipe.trainer.seed, accelerator),
        max_steps=max_steps,
        max_epochs=-1,
        val_check_interval=recipe.trainer.val_check_interval or max_steps,
        check_val_every_n_epoch=None,
        limit_val_batches=(recipe.trainer.limit_val_batches or 1.0) if recipe.data.validation_data_path else 0,
        num_sanity_val_steps=0,
        log_every_n_steps=recipe.trainer.log_every_n_steps,
        callbacks=[*_callbacks(recipe), checkpointer],
        logger=build_loggers(recipe.logging, run_directory, run_directory.name, resumed_step),
        profiler=_profiler(recipe.trainer, run_directory),
        enable_progress_bar=recipe.trainer.enable_progress_bar,
        enable_model_summary=False,
        # Core caches rotary embeddings by length: made in inference mode, training could not save them for backward.
        inference_mode=False,
        use_distributed_sampler=False,
        default_root_dir=run_directory,
    )
    if trainer.global_rank == 0:
        remove_incomplete(checkpoints)
        print(
            f"training {recipe.name}: {max_steps} steps of {global_batch_size} samples out of {num_samples:,}, "
            f"on {layout.world_size} process{'es' if layout.world_size > 1 else ''} ({accelerator})",
            flush=True,
        )
        if checkpoint is not None:
            print(f"resuming from {checkpoint} after {resumed_step} steps", flush=True)
        if resumed_step >= max_steps:
            print("nothing is left to do: to train longer, set trainer.max_steps to more", flush=True)
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    if not checkpointer.is_stopped:
        return True
    if trainer.global_rank == 0:
        step = trainer.global_step
        source = checkpoints / checkpoint_name(step) if step else "the beginning: there is nothing to save yet"
        print(f"stopped at step {step} of {max_steps} on request; resumes from {source}", flush=True)
    # Where one rank's end other than with 0 ends the others, none must have anything left to write.
    torch.distributed.barrier()
    return False


def _callbacks(recipe: Recipe) -> list[Callback]:
    callbacks: list[Callback] = []
    if recipe.trainer.ema_decay is not None:
        callbacks.append(AverageWeights(recipe.trainer.ema_decay))
    if recipe.trainer.early_stopping_patience is not None:
        assert recipe.checkpoint.monitor is not None
        callbacks.append(
            EarlyStopping(
                recipe.checkpoint.monitor, mode=recipe.checkpoint.mode, patience=recipe.trainer.early_stopping_patience
            )
        )
    if recipe.trainer.enable_progress_bar:
        callbacks.append(ProgressLines())
    return callbacks


def _profiler(config: TrainerConfig, run_directory: Path) -> Profiler | None:
    if config.profiler is None:
        return None
    return _PROFILERS[config.profiler](dirpath=run_directory, filename="profile")
