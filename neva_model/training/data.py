"""The data loaders of a training run, in the form that Lightning needs."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from megatron.core import parallel_state

from neva_model.data import MicrobatchLoader, SampleCounts, build_train_loader, build_validation_loader, count_samples
from neva_model.tokenizers import load_recipe_tokenizer
from neva_model.training.failures import Failures, GuardedLoader, SizedGuardedLoader
from neva_recipes.config import Recipe, how_many
from neva_recipes.plan.cost.rows import row_multiple

__all__ = ["TrainingData"]


class TrainingData(pl.LightningDataModule):
    """Makes this data-parallel rank's loaders once the process groups exist and a checkpoint is loaded.

    Attributes:
        tokenizer: The recipe's tokenizer.
        validation_files: The validation file that each batch of a validation is of, by its number in the recipe.
    """

    def __init__(self, recipe: Recipe, run_directory: Path, accelerator: str, failures: Failures) -> None:
        """Read the tokenizer.

        Args:
            recipe: The recipe to train.
            run_directory: Directory for the report on bad samples and for cached tokens.
            accelerator: `gpu` or `cpu`.
            failures: Keeps bad samples until the end of a step.
        """
        super().__init__()
        self._recipe = recipe
        self._run_directory = run_directory
        self._on_gpu = accelerator == "gpu"
        self._failures = failures
        self.tokenizer = load_recipe_tokenizer(recipe)
        self.validation_files: list[int] = []
        self._train_loader: MicrobatchLoader | None = None
        self.module: Any = None

    def count_samples(self) -> SampleCounts:
        """Check every record of the data files, and count the training samples."""
        return count_samples(self._recipe, self.tokenizer, run_dir=self._run_directory)

    def train_dataloader(self) -> GuardedLoader:
        """Return the loader of each step's micro batches, starting where the checkpoint stopped."""
        self._train_loader = build_train_loader(
            self._recipe, self.tokenizer, consumed_samples=self.module.consumed_samples, **self._share()
        )
        return GuardedLoader(self._train_loader, self._failures)

    def val_dataloader(self) -> SizedGuardedLoader | list[Any]:
        """Return the loader of each validation batch's micro batches."""
        if self._recipe.data.validation_data_path is None:
            return []
        loader = build_validation_loader(self._recipe, self.tokenizer, **self._share())
        self.validation_files = loader.files.tolist()
        return SizedGuardedLoader(loader, self._failures)

    def report(self) -> list[str]:
        """Return lines about samples that were cut or skipped, counted over all ranks; every rank must call this."""
        assert self._train_loader is not None
        loader, device = self._train_loader, self.trainer.strategy.root_device
        group = parallel_state.get_data_parallel_group()
        cut = torch.from_numpy(loader.truncated).to(device, torch.uint8)
        torch.distributed.all_reduce(cut, torch.distributed.ReduceOp.MAX, group=group)
        counts = torch.tensor([loader.truncations, loader.skipped_samples]).to(device)
        torch.distributed.all_reduce(counts, group=group)
        truncations, skipped = counts.tolist()
        lines = []
        if truncations:
            samples = int(cut.count_nonzero())
            were = f"{how_many(samples, 'sample')} {'was' if samples == 1 else 'were'}"
            times = f", {how_many(truncations, 'time')} in all" if truncations > samples else ""
            lines.append(f"{were} cut at data.sequence_length={self._recipe.data.sequence_length}{times}")
        if skipped:
            lines.append(
                f"bad samples were skipped {how_many(skipped, 'time')}: bad_samples.jsonl names each of them once"
            )
        return lines

    def _share(self) -> dict[str, Any]:
        return {
            "run_dir": self._run_directory,
            "data_parallel_rank": parallel_state.get_data_parallel_rank(),
            "data_parallel_size": parallel_state.get_data_parallel_world_size(),
            "pad_to_multiple_of": row_multiple(self._recipe, on_gpu=self._on_gpu),
            "pin_memory": self._on_gpu,
        }
