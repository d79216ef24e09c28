"""Indexed datasets, drawn by Megatron's `GPTDataset` and mixed by its `BlendedDataset`."""

import hashlib
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from megatron.core.datasets.blended_dataset import BlendedDataset
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.utils import Split, normalize

from neva_model.data._cache import build_once, data_file_state, lock_file
from neva_model.data.joined import Unusable
from neva_model.data.sample import Sample
from neva_model.data.text import TextDataset
from neva_recipes.config import RunError
from neva_recipes.prompts.encoding import IGNORE_INDEX
from neva_recipes.sources.indexed import IndexedTokens, indexed_tokens, tokens_file

__all__ = ["BlendedSamples"]

_SURPLUS = 0.005
"""Megatron's `mid_level_dataset_surplus`: what each file is drawn for beyond its share."""

# It warns that it does not keep the index of a blend, which is kept here.
logging.getLogger(BlendedDataset.__module__).setLevel(logging.ERROR)

_ENTRY = np.dtype([("dataset", "<i2"), ("sample", "<i8")])


class _NoTokenizer:
    """What Megatron asks of a tokenizer for data that is tokenized: no token fills up a last sample."""

    pad, eod = -1, -1
    vocab_size = None
    unique_identifiers: tuple[()] = ()


class BlendedSamples:
    """The samples of a whole training, in the order in which it takes them.

    Attributes:
        data_path: The files, for messages.
        has_image: False throughout. [samples]
        one_pass: Windows of all files, which is what an epoch counts.
        files: The files as windows in their order.
    """

    def __init__(
        self,
        files: Sequence[TextDataset],
        weights: Sequence[float] | None,
        *,
        sequence_length: int,
        count: int,
        seed: int,
        cache_folder: Path,
    ) -> None:
        """Draw the samples, or load what another process has drawn.

        Args:
            files: The files.
            weights: Their shares of the samples; `None` means by their numbers of tokens.
            sequence_length: Tokens of a sample.
            count: Samples of the training.
            seed: Decides the order.
            cache_folder: Folder for the indices.

        Raises:
            DataError: A file cannot be read.
            RunError: The folder cannot be written to.
        """
        self.files = files
        self.data_path = ", ".join(file.data_path for file in files)
        self.one_pass = sum(map(len, files))
        self.has_image = np.zeros(count, dtype=np.bool_)
        found = [indexed_tokens(Path(file.data_path)) for file in files]
        shares = normalize([float(tokens.tokens) for tokens in found] if weights is None else list(weights))
        config = GPTDatasetConfig(
            random_seed=seed,
            sequence_length=sequence_length,
            blend=([tokens.prefix for tokens in found], shares),
            split="1,0,0",
            path_to_cache=str(cache_folder),
            tokenizer=_NoTokenizer(),
            reset_position_ids=False,
            reset_attention_mask=False,
            eod_mask_loss=False,
            create_attention_mask=False,
        )
        if len(found) == 1:
            self._samples: Any = _drawn(found[0], count, config, cache_folder)
        else:
            wanted = [math.ceil(count * share) for share in shares]
            drawn = [
                _drawn(tokens, math.ceil(size * (1 + _SURPLUS)), config, cache_folder)
                for tokens, size in zip(found, wanted, strict=True)
            ]
            self._samples = _Blend(drawn, shares, sum(wanted), config, cache_folder)

    def __len__(self) -> int:
        return len(self.has_image)

    def unusable(self) -> Iterator[Unusable]:
        """Yield nothing: every window of text can be used."""
        return iter(())

    def load(self, position: int) -> Sample:
        """Return a sample of the training, by its number from 0."""
        drawn = self._samples[position]
        return Sample(drawn["tokens"], drawn["labels"].masked_fill(drawn["loss_mask"] == 0, IGNORE_INDEX))


class _Blend(BlendedDataset):
    """Megatron's blend, of which one process makes the index for all, before they meet."""

    def __init__(
        self, datasets: list[GPTDataset], weights: list[float], size: int, config: GPTDatasetConfig, folder: Path
    ) -> None:
        self._folder = folder
        # Megatron would ask the process group, which is not there yet, who makes the index.
        super().__init__(datasets, weights, size, replace(config, path_to_cache=None))

    def _build_indices(self) -> tuple[Any, Any]:
        def build(target: Path) -> None:
            dataset, sample = super(_Blend, self)._build_indices()
            entries = np.empty(len(dataset), dtype=_ENTRY)
            entries["dataset"], entries["sample"] = dataset, sample
            with target.open("wb") as file:
                np.save(file, entries)

        path = build_once(self._folder, ("blend", self.unique_description), ".blend.npy", build)
        entries = np.load(path, mmap_mode="r")
        return entries["dataset"], entries["sample"]


def _drawn(tokens: IndexedTokens, count: int, config: GPTDatasetConfig, cache_folder: Path) -> GPTDataset:
    """Return a file drawn for a number of samples; the first process makes its index, the others load it."""
    state = (*data_file_state(tokens.path), *data_file_state(tokens_file(tokens.path)))
    sources = (tokens.prefix, str(count), str(config.random_seed), str(config.sequence_length), *state)
    name = hashlib.sha256("\0".join(sources).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    folder = cache_folder / f"{name}.indices"
    try:
        cache_folder.mkdir(parents=True, exist_ok=True)
        with lock_file(cache_folder / f"{name}.lock"):
            if not folder.exists():
                _build(tokens, count, config, folder)
    except OSError as error:
        raise RunError(f"{cache_folder}: cannot be written to: {error.strerror}") from None
    return _dataset(tokens, count, replace(config, path_to_cache=str(folder)))


def _build(tokens: IndexedTokens, count: int, config: GPTDatasetConfig, folder: Path) -> None:
    """Have Megatron write its index, which counts as soon as its folder has its name."""
    for left in folder.parent.glob(f"{folder.name}.*"):  # of killed processes
        shutil.rmtree(left, ignore_errors=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        _dataset(tokens, count, replace(config, path_to_cache=str(unfinished)))
        os.chmod(unfinished, 0o755)  # noqa: PTH101
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _dataset(tokens: IndexedTokens, count: int, config: GPTDatasetConfig) -> GPTDataset:
    low = GPTDataset.build_low_level_dataset(tokens.prefix, config)
    documents = np.arange(tokens.sequences, dtype=np.int32)
    return GPTDataset(low, tokens.prefix, documents, count, Split.train, config)
