"""Loaders: for each optimizer step the microbatches of one data-parallel rank."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from neva_model.data._bad_samples import BadSampleReport
from neva_model.data._workers import prepare_worker
from neva_model.data.collate import Microbatch, collate, filler_sample
from neva_model.data.llava import LlavaDataset, SampleIndex
from neva_model.data.sample import BadSample, Sample
from neva_model.data.sampler import CyclicOrder, GroupedOrder, MicrobatchSampler, SampleOrder, SequentialOrder
from neva_model.data.text import TextDataset
from neva_model.tokenizers import Tokenizer
from neva_recipes.config import DataError, LlavaDataConfig, Recipe, RecipeError

__all__ = ["MicrobatchLoader", "build_train_loader", "build_validation_loader", "count_samples"]

_FILLER = -1
"""Position of a row that no sample of the validation file is left for."""


class _Loaded(NamedTuple):
    """What a worker hands over: a microbatch, or why there is none."""

    microbatch: Microbatch
    truncated: int
    skipped: int
    error: str | None


class _MicrobatchDataset(Dataset[_Loaded]):
    """Makes microbatches out of lists of positions, in whatever process."""

    def __init__(
        self,
        samples: LlavaDataset | TextDataset,
        report: BadSampleReport | None,
        *,
        replace: bool,
        pad_to_multiple_of: int,
        image_size: int,
    ) -> None:
        self._samples = samples
        self._report = report
        self._replace = replace
        self._pad_to_multiple_of = pad_to_multiple_of
        self._image_size = image_size

    def __getitem__(self, positions: list[int]) -> _Loaded:
        # An exception in a worker would reach the rank as the text of a traceback; a mistake in the data is one line.
        try:
            loaded = [self._load(position) for position in positions]
        except DataError as error:
            return _Loaded({}, 0, 0, str(error))
        samples = [sample for sample, _ in loaded]
        microbatch = collate(samples, pad_to_multiple_of=self._pad_to_multiple_of, image_size=self._image_size)
        return _Loaded(microbatch, sum(sample.truncated for sample in samples), sum(bad for _, bad in loaded), None)

    def _load(self, position: int) -> tuple[Sample, int]:
        """Return the sample, or what stands in for it, and the number of bad samples met."""
        if position == _FILLER:
            return filler_sample(), 0
        bad = 0
        for candidate in self._candidates(position):
            try:
                return self._samples.load(candidate), bad
            except BadSample as error:
                if self._report is None:
                    raise
                self._report.add(error)
                bad += 1
                if not self._replace:
                    return filler_sample(), bad
        raise DataError(f"{self._samples.data_path}: every sample is bad: see bad_samples.jsonl in the run directory")

    def _candidates(self, position: int) -> Iterator[int]:
        """Yield the position and all that may replace it: what follows in the file, samples with an image for one."""
        has_image = self._samples.has_image
        for distance in range(len(has_image)):
            candidate = (position + distance) % len(has_image)
            if has_image[candidate] == has_image[position]:
                yield candidate


class MicrobatchLoader(Iterable[list[Microbatch]]):
    """Yields for each step the list of this rank's microbatches.

    Attributes:
        num_samples: Samples of one pass.
        truncated_samples: Samples of this rank, so far, whose end was cut off.
        skipped_samples: Bad samples this rank has met so far, each as often as it was met.
    """

    def __init__(self, loader: DataLoader[Any], num_microbatches: int, num_samples: int) -> None:
        """Group what `loader` yields.

        Args:
            loader: Yields one microbatch at a time.
            num_microbatches: Microbatches of a step.
            num_samples: Samples of one pass.
        """
        self._loader = loader
        self._num_microbatches = num_microbatches
        self.num_samples = num_samples
        self.truncated_samples = 0
        self.skipped_samples = 0

    def __iter__(self) -> Iterator[list[Microbatch]]:
        """Yield from the first step on that the loader was built for.

        Raises:
            DataError: A sample cannot be used and data.on_bad_sample=error, or the file has changed.
        """
        step: list[Microbatch] = []
        for loaded in self._loader:
            if loaded.error is not None:
                raise DataError(loaded.error)
            self.truncated_samples += loaded.truncated
            self.skipped_samples += loaded.skipped
            step.append(loaded.microbatch)
            if len(step) == self._num_microbatches:
                yield step
                step = []


class _ValidationLoader(MicrobatchLoader):
    """A loader that knows how many steps it has."""

    def __init__(self, loader: DataLoader[Any], num_microbatches: int, num_samples: int, steps: int) -> None:
        super().__init__(loader, num_microbatches, num_samples)
        self._steps = steps

    def __len__(self) -> int:
        return self._steps


class _ValidationOrder:
    """One pass in the order of the file, the last batch filled up."""

    def __init__(self, num_samples: int) -> None:
        self._num_samples = num_samples

    def global_batch(self, consumed_samples: int, size: int) -> np.ndarray | None:
        if consumed_samples >= self._num_samples:
            return None
        positions = np.arange(consumed_samples, consumed_samples + size)
        return np.where(positions < self._num_samples, positions, _FILLER)


def count_samples(recipe: Recipe, tokenizer: Tokenizer, *, run_dir: Path | str) -> int:
    """Return the number of samples of one pass over the training file.

    A single pass has whole global batches only, so the samples that would not fill the last one do not count.

    Args:
        recipe: What to train on.
        tokenizer: The model's tokenizer.
        run_dir: Where indices and tokens are cached.

    Raises:
        DataError: The file cannot be used, or a single pass has less than one global batch.
        RecipeError: The recipe names no training file.
    """
    path, folder = _training_file(recipe), _cache_folder(run_dir)
    if isinstance(recipe.data, LlavaDataConfig):
        count = len(SampleIndex(Path(path), folder))
    else:
        count = len(TextDataset(path, recipe.data.sequence_length, tokenizer, folder))
    return count if recipe.data.dataloader_type == "cyclic" else _whole_batches(recipe, count)


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
    """Return the loader of the training file: endless with cyclic, one pass with single.

    Args:
        recipe: What to train on.
        tokenizer: The model's tokenizer.
        run_dir: Where bad samples are reported, and indices and tokens are cached.
        data_parallel_rank: This rank among those that share the global batch.
        data_parallel_size: Number of those ranks.
        consumed_samples: Samples that all ranks together have trained on before.
        pad_to_multiple_of: What the length of rows must be a multiple of.
        pin_memory: Put batches where a GPU can copy them from without waiting.

    Raises:
        DataError: The file or the tokenizer cannot be used, or a single pass is shorter than the training asked for.
        RecipeError: The recipe names no training file.
    """
    data = recipe.data
    samples = _open(recipe, _training_file(recipe), tokenizer, run_dir)
    count = len(samples)
    order: SampleOrder
    if data.dataloader_type == "single":
        count = _whole_batches(recipe, count)
        order = SequentialOrder(count)
    elif isinstance(data, LlavaDataConfig) and data.group_by_modality_length:
        order = GroupedOrder(samples.has_image, samples.lengths, recipe.trainer.seed)
    else:
        order = CyclicOrder(count, recipe.trainer.seed)
    loader = _data_loader(
        recipe,
        samples,
        MicrobatchSampler(
            order,
            global_batch_size=data.global_batch_size,
            micro_batch_size=data.micro_batch_size,
            rank=data_parallel_rank,
            ranks=data_parallel_size,
            consumed_samples=consumed_samples,
        ),
        run_dir,
        replace=True,
        pad_to_multiple_of=pad_to_multiple_of,
        pin_memory=pin_memory,
    )
    return MicrobatchLoader(loader, _num_microbatches(recipe, data_parallel_size), count)


def build_validation_loader(
    recipe: Recipe,
    tokenizer: Tokenizer,
    *,
    run_dir: Path | str,
    data_parallel_rank: int,
    data_parallel_size: int,
    pad_to_multiple_of: int,
    pin_memory: bool = False,
) -> MicrobatchLoader:
    """Return the loader of the validation file: one pass in its order, every sample once.

    The last batch is filled up with rows that carry no loss; with data.on_bad_sample=skip such a row also stands in for
    a bad sample.

    Args:
        recipe: What to validate on.
        tokenizer: The model's tokenizer.
        run_dir: Where bad samples are reported, and indices and tokens are cached.
        data_parallel_rank: This rank among those that share the global batch.
        data_parallel_size: Number of those ranks.
        pad_to_multiple_of: What the length of rows must be a multiple of.
        pin_memory: Put batches where a GPU can copy them from without waiting.

    Raises:
        DataError: The file or the tokenizer cannot be used.
        RecipeError: The recipe names no validation file.
    """
    data = recipe.data
    if data.validation_data_path is None:
        raise RecipeError("data.validation_data_path is not set: there is nothing to validate on")
    samples = _open(recipe, data.validation_data_path, tokenizer, run_dir)
    loader = _data_loader(
        recipe,
        samples,
        MicrobatchSampler(
            _ValidationOrder(len(samples)),
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
    steps = -(-len(samples) // data.global_batch_size)
    return _ValidationLoader(loader, _num_microbatches(recipe, data_parallel_size), len(samples), steps)


def _training_file(recipe: Recipe) -> str:
    if recipe.data.data_path is None:
        raise RecipeError("data.data_path is not set: it names the training file")
    return recipe.data.data_path


def _cache_folder(run_dir: Path | str) -> Path:
    return Path(run_dir) / "data_cache"


def _num_microbatches(recipe: Recipe, data_parallel_size: int) -> int:
    return recipe.data.global_batch_size // (recipe.data.micro_batch_size * data_parallel_size)


def _open(recipe: Recipe, path: str, tokenizer: Tokenizer, run_dir: Path | str) -> LlavaDataset | TextDataset:
    if isinstance(recipe.data, LlavaDataConfig):
        assert recipe.model.vision is not None, "require_valid lets no image data through without a vision tower"
        return LlavaDataset(recipe.data, path, recipe.model.vision, tokenizer, _cache_folder(run_dir))
    return TextDataset(path, recipe.data.sequence_length, tokenizer, _cache_folder(run_dir))


def _whole_batches(recipe: Recipe, count: int) -> int:
    """Return the samples of a single pass that fill global batches.

    Raises:
        DataError: They are fewer than the training asks for.
    """
    size = recipe.data.global_batch_size
    steps = count // size
    wanted = recipe.trainer.max_steps or recipe.trainer.max_epochs or 1
    if steps == 0 or (recipe.trainer.max_steps or 0) > steps or (recipe.trainer.max_epochs or 0) > 1:
        asked = f"max_steps={wanted}" if recipe.trainer.max_steps else f"max_epochs={wanted}"
        raise DataError(
            f"{recipe.data.data_path}: a single pass over {count} samples has {steps} steps of {size}, "
            f"but trainer.{asked}: ask for less, or use data.dataloader_type=cyclic"
        )
    return steps * size


def _data_loader(
    recipe: Recipe,
    samples: LlavaDataset | TextDataset,
    sampler: MicrobatchSampler,
    run_dir: Path | str,
    *,
    replace: bool,
    pad_to_multiple_of: int,
    pin_memory: bool,
) -> DataLoader[Any]:
    skips = isinstance(recipe.data, LlavaDataConfig) and recipe.data.on_bad_sample == "skip"
    dataset = _MicrobatchDataset(
        samples,
        BadSampleReport(Path(run_dir) / "bad_samples.jsonl") if skips else None,
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
        # PyTorch draws seeds for workers; from the global generator that would change what dropout draws.
        generator=torch.Generator(),
    )


def _unchanged(loaded: Any) -> Any:
    return loaded
