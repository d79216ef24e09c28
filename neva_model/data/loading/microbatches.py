"""Micro batches, made from positions of samples in any process."""

from collections.abc import Iterator
from typing import NamedTuple

from torch.utils.data import Dataset, get_worker_info

from neva_model.causes import explain
from neva_model.data.blend import BlendedSamples
from neva_model.data.joined import JoinedSamples
from neva_model.data.loading.bad_samples import BadSampleReport
from neva_model.data.loading.collate import Microbatch, collate, filler_sample
from neva_model.data.sample import BadSample, Sample
from neva_recipes.config import DataError
from neva_recipes.prompts.samples import SKIPS_IT

__all__ = ["FILLER", "LoadedMicrobatch", "MicrobatchDataset"]

FILLER = -1
"""Position of a row for which no sample of the validation files is left."""


class _Row(NamedTuple):
    """A row of a micro batch: a sample, its position, and the number of bad samples skipped before it."""

    sample: Sample
    position: int
    bad: int


class LoadedMicrobatch(NamedTuple):
    """A worker's result: a micro batch and the positions of its samples that were cut, or why there is none."""

    microbatch: Microbatch
    truncated: list[int]
    skipped: int
    error: str | None


class MicrobatchDataset(Dataset[LoadedMicrobatch]):
    """Makes micro batches from lists of positions, in any process."""

    def __init__(
        self,
        samples: JoinedSamples | BlendedSamples,
        report: BadSampleReport,
        *,
        skips: bool,
        replace: bool,
        pad_to_multiple_of: int,
        image_size: int,
    ) -> None:
        self._samples = samples
        self._report = report
        self._skips = skips
        self._replace = replace
        self._pad_to_multiple_of = pad_to_multiple_of
        self._image_size = image_size

    def __getitem__(self, positions: list[int]) -> LoadedMicrobatch:
        # An exception in a worker would reach the rank as a traceback text; an error in the data should be one line.
        try:
            loaded = [self._load(position) for position in positions]
        except BadSample as error:
            return LoadedMicrobatch({}, [], 0, f"{error}; {SKIPS_IT}")
        except DataError as error:
            return LoadedMicrobatch({}, [], 0, str(error))
        samples = [one.sample for one in loaded]
        microbatch = collate(samples, pad_to_multiple_of=self._pad_to_multiple_of, image_size=self._image_size)
        if get_worker_info() is not None:
            # Otherwise a thread of the worker would do it; nobody sees its errors, and the rank would wait for ever.
            try:
                for tensor in microbatch.values():
                    tensor.share_memory_()
            except RuntimeError as error:
                if (cause := explain(error)) is None:
                    raise
                return LoadedMicrobatch({}, [], 0, cause.message)
        truncated = [one.position for one in loaded if one.sample.truncated]
        return LoadedMicrobatch(microbatch, truncated, sum(one.bad for one in loaded), None)

    def _load(self, position: int) -> _Row:
        """Return the sample, or its replacement."""
        if position == FILLER:
            return _Row(filler_sample(), FILLER, 0)
        bad = 0
        for candidate in self._candidates(position):
            try:
                return _Row(self._samples.load(candidate), candidate, bad)
            except BadSample as error:
                if not (self._skips or error.teaches_nothing):
                    raise
                self._report.add(error)
                bad += 1
                if not self._replace:
                    return _Row(filler_sample(), FILLER, bad)
        raise DataError(f"{self._samples.data_path}: every sample is bad: see bad_samples.jsonl in the run directory")

    def _candidates(self, position: int) -> Iterator[int]:
        """Yield the position and all that may replace it: later ones in the files, with an image if it has one."""
        has_image = self._samples.has_image
        for distance in range(len(has_image)):
            candidate = (position + distance) % len(has_image)
            if has_image[candidate] == has_image[position]:
                yield candidate
