"""The loaders of a training run, as Lightning asks for them."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from megatron.core import parallel_state

from neva_model.data import MicrobatchLoader, build_train_loader, build_validation_loader, count_samples
from neva_model.tokenizers import load_recipe_tokenizer
from neva_recipes.config import Recipe
from neva_recipes.plan.rows import row_multiple

__all__ = ["TrainingData"]


class TrainingData(pl.LightningDataModule):
    """Makes this data-parallel rank's loaders once the process groups exist and a checkpoint is loaded.

    Attributes:
        tokenizer: The recipe's tokenizer.
    """

    def __init__(self, recipe: Recipe, run_directory: Path, accelerator: str) -> None:
        """Read the tokenizer.

        Args:
            recipe: What to train on.
            run_directory: Where bad samples are reported and tokens are cached.
            accelerator: `gpu` or `cpu`.
        """
        super().__init__()
        self._recipe = recipe
        self._run_directory = run_directory
        self._on_gpu = accelerator == "gpu"
        self.tokenizer = load_recipe_tokenizer(recipe)
        self._train_loader: MicrobatchLoader | None = None
        self.module: Any = None

    @property
    def num_samples(self) -> int:
        """Samples of one pass over the training file."""
        return count_samples(self._recipe, self.tokenizer, run_dir=self._run_directory)

    def train_dataloader(self) -> MicrobatchLoader:
        """Yield the microbatches of each step, from where the checkpoint stopped."""
        self._train_loader = build_train_loader(
            self._recipe, self.tokenizer, consumed_samples=self.module.consumed_samples, **self._share()
        )
        return self._train_loader

    def val_dataloader(self) -> MicrobatchLoader | list[Any]:
        """Yield the microbatches of each validation batch."""
        if self._recipe.data.validation_data_path is None:
            return []
        return build_validation_loader(self._recipe, self.tokenizer, **self._share())

    def report(self) -> list[str]:
        """Return lines about samples that were cut or skipped, counted over all ranks; every rank takes part."""
        assert self._train_loader is not None
        counts = torch.tensor([self._train_loader.truncated_samples, self._train_loader.skipped_samples])
        counts = counts.to(self.trainer.strategy.root_device)
        torch.distributed.all_reduce(counts, group=parallel_state.get_data_parallel_group())
        truncated, skipped = counts.tolist()
        lines = []
        if truncated:
            lines.append(f"{truncated} samples were cut at data.sequence_length={self._recipe.data.sequence_length}")
        if skipped:
            lines.append(f"bad samples were skipped {skipped} times: bad_samples.jsonl names each of them once")
        return lines

    def _share(self) -> dict[str, Any]:
        return {
            "run_dir": self._run_directory,
            "data_parallel_rank": parallel_state.get_data_parallel_rank(),
            "data_parallel_size": parallel_state.get_data_parallel_world_size(),
            "pad_to_multiple_of": row_multiple(self._recipe, on_gpu=self._on_gpu),
            "pin_memory": self._on_gpu,
        }
