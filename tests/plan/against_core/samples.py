"""Made-up training samples: each a pure function of its number, so that every layout sees the same ones."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch

from neva_model.data import Microbatch, Sample
from neva_model.data.encoding import EncodedConversation
from neva_model.data.loading.collate import collate
from neva_model.data.loading.sampler import MicrobatchSampler, SequentialOrder
from neva_model.model import IMAGE_TOKEN_INDEX
from neva_model.training.data import TrainingData
from neva_recipes.config import Recipe
from neva_recipes.families import image_length

__all__ = ["SyntheticData"]


class SyntheticData(TrainingData):
    """The loaders of a run without files or a tokenizer; sampling, cutting and padding are those of real runs."""

    def __init__(self, recipe: Recipe, steps: int) -> None:
        pl.LightningDataModule.__init__(self)
        self._recipe = recipe
        self._run_directory = Path(tempfile.gettempdir())
        self._on_gpu = False
        self._steps = steps

    def train_dataloader(self) -> "_Steps":
        data, share = self._recipe.data, self._share()
        sampler = MicrobatchSampler(
            SequentialOrder(self._steps * data.global_batch_size),
            global_batch_size=data.global_batch_size,
            micro_batch_size=data.micro_batch_size,
            rank=share["data_parallel_rank"],
            ranks=share["data_parallel_size"],
            consumed_samples=0,
        )
        vision = self._recipe.model.vision
        microbatches = [
            collate(
                [_sample(self._recipe, number) for number in numbers],
                pad_to_multiple_of=share["pad_to_multiple_of"],
                image_size=vision.image_size if vision else 0,
            )
            for numbers in sampler
        ]
        each = len(microbatches) // self._steps
        return _Steps([microbatches[step * each : (step + 1) * each] for step in range(self._steps)])

    def report(self) -> list[str]:
        return []


class _Steps:
    """The microbatches of each step; not a list, which Lightning would take for several loaders."""

    def __init__(self, steps: list[list[Microbatch]]) -> None:
        self._steps = steps

    def __iter__(self) -> Iterator[list[Microbatch]]:
        return iter(self._steps)

    def __len__(self) -> int:
        return len(self._steps)


def _sample(recipe: Recipe, number: int) -> Sample:
    vocabulary, longest = recipe.model.language.vocab_size, recipe.data.sequence_length
    generator = np.random.default_rng(number)
    if recipe.model.vision is None:
        # Documents are packed, so every row of text is full.
        tokens = torch.from_numpy(generator.integers(0, vocabulary, longest + 1))
        return Sample(tokens[:-1], tokens[1:])
    has_image = number % 3 != 2
    # The shortest prompt of the plain template: the image alone.
    prompt = [IMAGE_TOKEN_INDEX] * image_length(recipe.model.vision) if has_image else [1]
    # Every fourth sample is cut; answers are of different lengths.
    answer = longest if number % 4 == 0 else 2 + number * 5 % max(1, longest - len(prompt) - 2)
    tokens = np.array([*prompt, *generator.integers(0, vocabulary, answer)])
    learned = np.arange(len(tokens)) >= len(prompt)
    side = recipe.model.vision.image_size
    image = torch.from_numpy(generator.standard_normal((3, side, side), dtype=np.float32)) if has_image else None
    return EncodedConversation(tokens, learned).to_sample(longest, image)
