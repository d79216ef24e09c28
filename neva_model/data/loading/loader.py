"""Data loaders: the micro batches of one data-parallel rank for each optimizer step."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from neva_model.data.blend import BlendedSamples
from neva_model.data.joined import JoinedSamples
from neva_model.data.loading._workers import prepare_worker
from neva_model.data.loading.collate import Microbatch
from neva_model.data.loading.microbatches import FILLER, MicrobatchDataset
from neva_model.data.loading.opening import (
    open_samples,
    open_training_samples,
    report_of,
    skips_bad_samples,
    whole_batches,
)
from neva_model.data.loading.sampler import (
    CyclicOrder,
    GroupedOrder,
    MicrobatchSampler,
    SampleOrder,
    SequentialOrder,
)
from neva_model.tokenizers import Tokenizer
from neva_recipes.config import DataError, LlavaDataConfig, Recipe

__all__ = ["MicrobatchLoader", "ValidationLoader", "build_train_loader", "build_validation_loader"]


class MicrobatchLoader(Iterable[list[Microbatch]]):
    """Yields for each step the list of this rank's micro batches.

    Attributes:
        num_samples: Samples of one pass.
        truncated: Which samples this rank has cut off so far, by position.
        truncations: How often this rank has cut off a sample.
        skipped_samples: Bad samples met by this rank so far, each counted as often as it was met.
    """

    def __init__(self, loader: DataLoader[Any], num_microbatches: int, num_samples: int, positions: int) -> None:
        """Group the results of `loader`.

        Args:
            loader: Yields one micro batch at a time.
            num_microbatches: Micro batches of a step.
            num_samples: Samples of one pass.
            positions: Samples of the files.
        """
        self._loader = loader
        self._num_microbatches = num_microbatches
        self.num_samples = num_samples
        self.truncated: NDArray[np.bool_] = np.zeros(positions, dtype=np.bool_)
        self.truncations = 0
        self.skipped_samples = 0

    def __iter__(self) -> Iterator[list[Microbatch]]:
        """Yield the steps, beginning with the one that the loader was built for.

        Raises:
            DataError: A sample cannot be used and data.on_bad_sample=error, or the file has changed.
        """
        step: list[Microbatch] = []
        for loaded in self._loader:
            if loaded.error is not None:
                raise DataError(loaded.error)
            self.truncated[loaded.truncated] = True
            self.truncations += len(loaded.truncated)
            self.skipped_samples += loaded.skipped
            step.append(loaded.microbatch)
            if len(step) == self._num_microbatches:
                yield step
                step = []


class ValidationLoader(MicrobatchLoader):
    """A loader with a known number of steps.

    Attributes:
        files: The file that each step is of, by its number in the recipe. [steps]
    """

    def __init__(
        self, loader: DataLoader[Any], num_microbatches: int, num_samples: int, files: NDArray[np.int64]
    ) -> None:
        """Group the results of `loader`, as for training.

        Args:
            loader: Yields one micro batch at a time.
            num_microbatches: Micro batches of a step.
            num_samples: Samples of all files.
            files: The file of each step.
        """
        super().__init__(loader, num_microbatches, num_samples, num_samples)
        self.files = files

    def __len__(self) -> int:
        return len(self.files)


class _ValidationOrder:
    """One pass through every file, in batches of a single file each, the last of which is padded.

    The files take turns, so that a validation of some batches only is one of all files.
    """

    def __init__(self, lengths: Sequence[int], size: int) -> None:
        batches = np.array(
            [(number, file) for file, length in enumerate(lengths) for number in range(-(-length // size))]
        )
        turns = batches[np.lexsort((batches[:, 1], batches[:, 0]))]
        self.files = turns[:, 1]
        self._numbers = turns[:, 0]
        self._lengths = np.array(lengths)
        self._starts = np.cumsum(self._lengths) - self._lengths

    def global_batch(self, consumed_samples: int, size: int) -> np.ndarray | None:
        step = consumed_samples // size
        if step >= len(self.files):
            return None
        file, number = self.files[step], self._numbers[step]
        positions = np.arange(number * size, (number + 1) * size)
        return np.where(positions < self._lengths[file], self._starts[file] + positions, FILLER)


def build_train_loader(
    recipe: Recipe,
    tokenizer: Tokenizer,
    *,
    run_dir: Path | str,
    data_parallel_rank: int,
    data_parallel_size: int,
    consumed_samples: int,
    pad_to_multiple_of: int,
    pin_memory: bool = False,
) -> MicrobatchLoader:
    """Return the loader of the training files: endless if cyclic, one pass if single.

    Args:
        recipe: The recipe to train.
        tokenizer: The model's tokenizer.
        run_dir: Directory for the report on bad samples, and for cached indices and tokens.
        data_parallel_rank: This rank among the data-parallel ranks.
        data_parallel_size: Number of these ranks.
        consumed_samples: Samples that all ranks together have already trained on.
        pad_to_multiple_of: The length of rows must be a multiple of this.
        pin_memory: Put batches into pinned memory, from which a GPU can copy them without waiting.

    Raises:
        DataError: The file or the tokenizer cannot be used, or a single pass is shorter than the run.
        RecipeError: The recipe names no training file.
    """
    samples = open_training_samples(recipe, tokenizer, run_dir)
    count = samples.one_pass
    if recipe.data.dataloader_type == "single":
        count = whole_batches(recipe, count)
    loader = _data_loader(
        recipe,
        samples,
        MicrobatchSampler(
            _training_order(recipe, samples, count),
            global_batch_size=recipe.data.global_batch_size,
            micro_batch_size=recipe.data.micro_batch_size,
            rank=data_parallel_rank,
            ranks=data_parallel_size,
            consumed_samples=consumed_samples,
        ),
        run_dir,
        replace=True,
        pad_to_multiple_of=pad_to_multiple_of,
        pin_memory=pin_memory,
    )
    return MicrobatchLoader(loader, _num_microbatches(recipe, data_parallel_size), count, len(samples))


def _training_order(recipe: Recipe, samples: JoinedSamples | BlendedSamples, count: int) -> SampleOrder:
    data, seed = recipe.data, recipe.trainer.seed
    if isinstance(samples, BlendedSamples):
        return SequentialOrder(len(samples))
    if data.dataloader_type == "single":
        return SequentialOrder(count)
    if isinstance(data, LlavaDataConfig) and data.group_by_modality_length:
        return GroupedOrder(samples.has_image, samples.lengths, seed)
    return CyclicOrder(count, seed)


def build_validation_loader(
    recipe: Recipe,
    tokenizer: Tokenizer,
    *,
    run_dir: Path | str,
    data_parallel_rank: int,
    data_parallel_size: int,
    pad_to_multiple_of: int,
    pin_memory: bool = False,
) -> ValidationLoader:
    """Return the loader of the validation files: every sample once, batches of one file each, the files in turn.

    The last batch of a file is padded with rows that carry no loss. Such a row also replaces a sample that teaches
    nothing and, with data.on_bad_sample=skip, a bad sample.

    Args:
        recipe: The recipe to validate.
        tokenizer: The model's tokenizer.
        run_dir: Directory for the report on bad samples, and for cached indices and tokens.
        data_parallel_rank: This rank among the data-parallel ranks.
        data_parallel_size: Number of these ranks.
        pad_to_multiple_of: The length of rows must be a multiple of this.
        pin_memory: Put batches into pinned memory, from which a GPU can copy them without waiting.

    Raises:
        DataError: The file or the tokenizer cannot be used.
        RecipeError: The recipe names no validation file.
    """
    data = recipe.data
    samples = open_samples(recipe, "data.validation_data_path", tokenizer, run_dir)
    order = _ValidationOrder([len(file) for file in samples.files], data.global_batch_size)
    loader = _data_loader(
        recipe,
        samples,
        MicrobatchSampler(
            order,
            global_batch_size=data.global_batch_size,
            micro_batch_size=data.micro_batch_size,
            rank=data_parallel_rank,
            ranks=data_parallel_size,
            consumed_samples=0,
        ),
        run_dir,
        replace=False,
        pad_to_multiple_of=pad_to_multiple_of,
        pin_memory=pin_memory,
    )
    return ValidationLoader(loader, _num_microbatches(recipe, data_parallel_size), len(samples), order.files)


def _num_microbatches(recipe: Recipe, data_parallel_size: int) -> int:
    return recipe.data.global_batch_size // (recipe.data.micro_batch_size * data_parallel_size)


def _data_loader(
    recipe: Recipe,
    samples: JoinedSamples | BlendedSamples,
    sampler: MicrobatchSampler,
    run_dir: Path | str,
    *,
    replace: bool,
    pad_to_multiple_of: int,
    pin_memory: bool,
) -> DataLoader[Any]:
    dataset = MicrobatchDataset(
        samples,
        report_of(run_dir),
        skips=skips_bad_samples(recipe),
        replace=replace,
        pad_to_multiple_of=pad_to_multiple_of,
        image_size=recipe.model.vision.image_size if recipe.model.vision else 0,
    )
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=sampler,
        num_workers=recipe.data.num_workers,
        collate_fn=_unchanged,
        worker_init_fn=prepare_worker,
        pin_memory=pin_memory,
        # PyTorch draws seeds for workers; drawing them from the global generator would change dropout.
        generator=torch.Generator(),
    )


def _unchanged(loaded: object) -> Any:
    return loaded
