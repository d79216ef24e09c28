"""Trains a recipe from start to end."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler

from neva_model.checkpoints.distributed import newest_checkpoint, sweep_checkpoints
from neva_model.checkpoints.information import CheckpointInformation, SavedAdapters, read_information, saved_recipe
from neva_model.data import SampleCounts
from neva_model.failure import DivergedError, FailedTogether
from neva_model.log_width import log_width
from neva_model.training.average import AverageWeights
from neva_model.training.checkpointer import Checkpointer
from neva_model.training.data import TrainingData
from neva_model.training.early_stopping import StopEarly
from neva_model.training.failures import Failures
from neva_model.training.loggers import build_loggers
from neva_model.training.module import NevaTrainingModule
from neva_model.training.progress import ProgressLines
from neva_model.training.step_file import StepFile
from neva_model.training.strategy import MegatronStrategy
from neva_recipes.config import Recipe, RunError, TrainerConfig
from neva_recipes.plan import layout_of
from neva_recipes.plan.cost.schedule import run_steps
from neva_recipes.plan.resuming import require_resumable, resume_notes
from neva_recipes.run_directory.attempt import let_go
from neva_recipes.run_directory.layout import CHECKPOINTS
from neva_recipes.run_directory.names import checkpoint_name
from neva_recipes.run_directory.standing import given_name
from neva_recipes.storage.checkpoints import way_back

__all__ = ["accelerator_of", "train"]

_PROFILERS: dict[str, type[Profiler]] = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}


def accelerator_of(config: TrainerConfig) -> str:
    """Return `gpu` or `cpu`, the device that this process trains on.

    Raises:
        RunError: The recipe asks for a GPU, but there is none.
    """
    if config.accelerator == "gpu" and not torch.cuda.is_available():
        raise RunError("trainer.accelerator=gpu but torch sees no GPU here; use auto or cpu")
    return "gpu" if config.accelerator != "cpu" and torch.cuda.is_available() else "cpu"


class _Resumed(NamedTuple):
    """What training goes on from.

    Attributes:
        checkpoint: The run's newest checkpoint.
        information: Its record.
        recipe: The recipe that it was trained with.
    """

    checkpoint: Path
    information: CheckpointInformation
    recipe: Recipe


def train(recipe: Recipe, recipe_yaml: str, run_directory: Path) -> bool:
    """Train, from the run's newest checkpoint if it has one.

    Args:
        recipe: The recipe to train.
        recipe_yaml: The recipe as text.
        run_directory: Directory for metrics and checkpoints.

    Returns:
        Whether training is finished; if not, it was stopped on request.
    """
    accelerator, checkpoints = accelerator_of(recipe.trainer), run_directory / CHECKPOINTS
    resumed = _resumed(checkpoints, recipe)
    begin = resumed.information.step if resumed else 0
    failures = Failures()
    data = TrainingData(recipe, run_directory, accelerator, failures)
    # Every rank reads the file before it waits for another rank: a long file must not cause a timeout.
    counts = data.count_samples()
    max_steps = run_steps(recipe, counts.one_pass)
    assert max_steps is not None
    start = SavedAdapters(resumed.checkpoint, resumed.information) if resumed else None
    module = NevaTrainingModule(recipe, recipe_yaml, max_steps, failures, resumed=start)
    data.module = module
    due = resumed.information.validation if resumed else None
    first = recipe.trainer.val_before_training and recipe.data.validation_data_path is not None and resumed is None
    checkpointer = Checkpointer(checkpoints, recipe.checkpoint, failures, due, validates_first=first)
    pl.seed_everything(recipe.trainer.seed, verbose=False)
    trainer = _trainer(recipe, run_directory, max_steps, resumed, checkpointer, failures)
    validates_only = due == "due" and begin >= max_steps
    if validates_only:
        # Otherwise Lightning would see no step left and not start; the checkpointer corrects the number.
        trainer.fit_loop.epoch_loop.max_steps = begin + 1
    if trainer.global_rank == 0:
        sweep_checkpoints(checkpoints)
        for line in _first_lines(recipe, run_directory, max_steps, counts, resumed):
            print(line, flush=True)
        if begin >= max_steps and not validates_only:
            print("nothing is left to do: to train longer, set trainer.max_steps to more", flush=True)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=resumed.checkpoint if resumed else None)
    except DivergedError as error:
        raise FailedTogether(error.rank, f"{error}{way_back(run_directory, error.step)}") from None
    if trainer.global_rank == 0:
        let_go(run_directory)  # if nothing was left to train
        if begin >= max_steps:
            checkpointer.delete_superseded(begin)  # normally done after the first step, but there was none
    failures.raise_together(trainer.strategy.root_device)
    if checkpointer.is_stopped:
        _end_stopped(trainer, checkpoints, max_steps)
    return not checkpointer.is_stopped


def _resumed(checkpoints: Path, recipe: Recipe) -> _Resumed | None:
    """Return what training goes on from; `None` if it begins.

    Raises:
        CheckpointError: The checkpoint cannot be read.
        RecipeError: The recipe cannot go on from it.
    """
    checkpoint = newest_checkpoint(checkpoints)
    if checkpoint is None:
        return None
    resumed = _Resumed(checkpoint, read_information(checkpoint), saved_recipe(checkpoint))
    told = resumed.information
    require_resumable(checkpoint, resumed.recipe, recipe, told.consumed_samples, told.vocabulary_digest)
    return resumed


def _trainer(
    recipe: Recipe,
    run_directory: Path,
    max_steps: int,
    resumed: _Resumed | None,
    checkpointer: Checkpointer,
    failures: Failures,
) -> pl.Trainer:
    config, layout, accelerator = recipe.trainer, layout_of(recipe), accelerator_of(recipe.trainer)
    begin = resumed.information.step if resumed else 0
    return pl.Trainer(
        accelerator=accelerator,
        devices=layout.processes_per_node,
        num_nodes=layout.num_nodes,
        strategy=MegatronStrategy(recipe.parallel, config.seed, accelerator),
        max_steps=max_steps,
        max_epochs=-1,
        val_check_interval=config.val_check_interval or max_steps,
        check_val_every_n_epoch=None,
        limit_val_batches=(config.limit_val_batches or 1.0) if recipe.data.validation_data_path else 0,
        num_sanity_val_steps=0,
        log_every_n_steps=config.log_every_n_steps,
        callbacks=[
            _Started(run_directory),
            StepFile(run_directory),
            *_callbacks(recipe, run_directory, resumed.information if resumed else None),
            checkpointer,
        ],
        logger=build_loggers(recipe.logging, run_directory, run_directory.name, begin, failures),
        profiler=_profiler(config, run_directory),
        enable_progress_bar=config.enable_progress_bar,
        enable_model_summary=False,
        # Core caches rotary embeddings by length; if made in inference mode, training could not save them for backward.
        inference_mode=False,
        use_distributed_sampler=False,
        default_root_dir=run_directory,
    )


def _first_lines(
    recipe: Recipe, run_directory: Path, max_steps: int, counts: SampleCounts, resumed: _Resumed | None
) -> Iterator[str]:
    """Yield what is trained on how many processes, and what it goes on from."""
    world_size = layout_of(recipe).world_size
    yield (
        f"training {_title(recipe, run_directory)}: {max_steps} steps of {recipe.data.global_batch_size} samples "
        f"out of {min(counts.usable, counts.one_pass):,}, on {world_size} process{'es' if world_size > 1 else ''} "
        f"({accelerator_of(recipe.trainer)})"
    )
    if resumed is not None:
        step, metrics = resumed.information.step, resumed.information.metrics
        yield f"resuming from {resumed.checkpoint} after {step} steps"
        yield from resume_notes(resumed.recipe, recipe, step=step, metrics=metrics, num_samples=counts.one_pass)


def _end_stopped(trainer: pl.Trainer, checkpoints: Path, max_steps: int) -> None:
    """Tell from where a run that was stopped on request resumes; every rank must call this."""
    if trainer.global_rank == 0:
        step = trainer.global_step
        source = checkpoints / checkpoint_name(step) if step else "the beginning: there is nothing to save yet"
        print(f"stopped at step {step} of {max_steps} on request; resumes from {source}", flush=True)
    # A nonzero exit of one rank may end the other ranks, so all must have finished writing.
    torch.distributed.barrier()


def _title(recipe: Recipe, run_directory: Path) -> str:
    """Return the name that the user gave the run, with the name of the recipe if that differs."""
    called = given_name(run_directory)
    return recipe.name if called in (None, recipe.name) else f"{called} ({recipe.name})"


def _callbacks(recipe: Recipe, run_directory: Path, resumed: CheckpointInformation | None) -> list[Callback]:
    callbacks: list[Callback] = []
    if recipe.trainer.ema_decay is not None:
        callbacks.append(AverageWeights(recipe.trainer.ema_decay))
    if recipe.trainer.early_stopping_patience is not None:
        assert recipe.checkpoint.monitor is not None
        callbacks.append(
            StopEarly(
                recipe.checkpoint.monitor, recipe.checkpoint.mode, recipe.trainer.early_stopping_patience, resumed
            )
        )
    if recipe.trainer.enable_progress_bar:
        callbacks.append(ProgressLines(log_width(run_directory)))
    return callbacks


class _Started(Callback):
    """Accepts the recipe for good once training begins with it."""

    def __init__(self, run_directory: Path) -> None:
        self._run_directory = run_directory

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Discard the recipe before this attempt."""
        if trainer.global_rank == 0:
            let_go(self._run_directory)


def _profiler(config: TrainerConfig, run_directory: Path) -> Profiler | None:
    if config.profiler is None:
        return None
    return _PROFILERS[config.profiler](dirpath=run_directory, filename="profile")
