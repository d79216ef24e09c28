"""One training sample, and the error for one that cannot be used."""

from dataclasses import dataclass

import torch

from neva_recipes.config import DataError

__all__ = ["BadSample", "Sample"]


@dataclass(frozen=True)
class Sample:
    """A sequence ready to be batched.

    Attributes:
        tokens: Token ids, IMAGE_TOKEN_INDEX at image positions. [sequence] int64
        labels: The target predicted at each position, or IGNORE_INDEX. [sequence] int64
        image: The processed image, or `None`. [3, height, width] float32
        truncated: Whether the end was cut off.
    """

    tokens: torch.Tensor
    labels: torch.Tensor
    image: torch.Tensor | None = None
    truncated: bool = False


class BadSample(DataError):
    """A sample that cannot be used, named by file, position and id.

    Attributes:
        teaches_nothing: Whether its only problem is that nothing in it carries loss.
    """

    def __init__(
        self, data_path: str, index: int, identity: object, reason: str, *, teaches_nothing: bool = False
    ) -> None:
        """Name the sample.

        Args:
            data_path: The data file.
            index: Position in the file, from 0.
            identity: The sample's own id, or `None`.
            reason: What is wrong with it.
            teaches_nothing: Whether the only problem is that nothing in it carries loss.
        """
        reason = reason.replace("\n", "\\n")
        named = "" if identity is None else f" (id {str(identity)[:200]!r})"
        super().__init__(f"{data_path}: sample {index}{named}: {reason}")
        self.data_path = data_path
        self.index = index
        self.identity = identity
        self.reason = reason
        self.teaches_nothing = teaches_nothing
