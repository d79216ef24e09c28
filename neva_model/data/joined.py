"""The samples of several data files as one sequence, in the order of the files."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from neva_model.data.llava import LlavaDataset
from neva_model.data.sample import BadSample, Sample
from neva_model.data.text import TextDataset

__all__ = ["JoinedSamples", "Unusable"]


class Unusable(NamedTuple):
    """A sample that cannot be used.

    Attributes:
        position: Its position among the samples of all files.
        error: What is wrong, with the file and the position in it.
    """

    position: int
    error: BadSample


class JoinedSamples:
    """Samples of one or several data files, identified by their position among all of them.

    Messages and reports name a sample by its own file and its position in it.

    Attributes:
        data_path: The files, for messages.
        has_image: Whether each sample names an image. [samples]
        lengths: Length of each sample, from its file's data set. [samples]
    """

    def __init__(self, files: Sequence[LlavaDataset] | Sequence[TextDataset]) -> None:
        """Join the data sets of files, in their order; there is at least one."""
        self._files = files
        self._ends = np.cumsum([len(file) for file in files])
        self.data_path = ", ".join(file.data_path for file in files)
        self.has_image = np.concatenate([file.has_image for file in files])
        self.lengths = np.concatenate([file.lengths for file in files])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def one_pass(self) -> int:
        """Samples of one pass."""
        return len(self)

    @property
    def files(self) -> "Sequence[LlavaDataset] | Sequence[TextDataset]":
        """The data sets of the files, in their order."""
        return self._files

    def unusable(self) -> Iterator[Unusable]:
        """Yield every sample that cannot be used, as far as can be seen without decoding and encoding it.

        Raises:
            DataError: A file has changed since it was indexed.
        """
        for file, end in zip(self._files, self._ends, strict=True):
            if isinstance(file, LlavaDataset):
                for error in file.unusable():
                    yield Unusable(int(end) - len(file) + error.index, error)

    def load(self, position: int) -> Sample:
        """Return one sample.

        Raises:
            BadSample: The sample cannot be used; the message names its file, its position in it and the sample's id.
            DataError: Its file has changed since it was indexed.
        """
        number = int(np.searchsorted(self._ends, position, side="right"))
        file = self._files[number]
        return file.load(position - (int(self._ends[number]) - len(file)))
