"""Puts samples of different lengths into one batch of tensors."""

from collections.abc import Sequence

import torch

from neva_model.data.sample import Sample
from neva_recipes.prompts.encoding import IGNORE_INDEX

__all__ = ["Microbatch", "collate", "filler_sample"]

Microbatch = dict[str, torch.Tensor]
"""Tensors of one micro batch.

    tokens [batch, sequence] int64, IMAGE_TOKEN_INDEX at image positions
    labels [batch, sequence] int64, the target predicted at each position or IGNORE_INDEX
    position_ids [batch, sequence] int64
    images [images, 3, height, width] float32, in the order of their appearance; possibly none
    num_tokens [] int64, positions that are not padding
"""


def collate(samples: Sequence[Sample], *, pad_to_multiple_of: int, image_size: int) -> Microbatch:
    """Return the micro batch of some samples, padded on the right.

    Args:
        samples: The rows.
        pad_to_multiple_of: Rows are as long as the longest sample, rounded up to a multiple of this.
        image_size: Side of the images, in pixels; the shape of the empty tensor if no sample has an image.
    """
    lengths = torch.tensor([len(sample.tokens) for sample in samples])
    longest = int(lengths.max())
    length = -(-longest // pad_to_multiple_of) * pad_to_multiple_of
    tokens = torch.zeros(len(samples), length, dtype=torch.int64)
    labels = torch.full_like(tokens, IGNORE_INDEX)
    for row, sample in enumerate(samples):
        tokens[row, : len(sample.tokens)] = sample.tokens
        labels[row, : len(sample.labels)] = sample.labels
    images = [sample.image for sample in samples if sample.image is not None]
    return {
        "tokens": tokens,
        "labels": labels,
        # Angles may depend on the largest position (dynamic, longrope), and must not on padding for a layout.
        "position_ids": torch.arange(length).clamp(max=longest - 1).repeat(len(samples), 1),
        "images": torch.stack(images) if images else torch.zeros(0, 3, image_size, image_size),
        "num_tokens": lengths.sum(),
    }


def filler_sample() -> Sample:
    """Return a row that pads a batch and carries no loss."""
    return Sample(torch.zeros(1, dtype=torch.int64), torch.full((1,), IGNORE_INDEX, dtype=torch.int64))
