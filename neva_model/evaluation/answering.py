"""Lets a model answer many questions, in batches of prompts of equal length; every image is encoded once."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from neva_model.data import read_image
from neva_model.data.sample import BadSample
from neva_model.evaluation.questions import Question
from neva_model.inference.generate import generate, image_features_of
from neva_model.inference.opening import OpenModel
from neva_model.inference.options import Sampling
from neva_model.inference.text_stream import TextStream
from neva_recipes.config import DataError

__all__ = ["answer_questions"]

_WINDOW = 256
"""Number of questions whose image features are in memory at a time: at most 1.2 GB for LLaVA-1.5 7B."""

_SHORTEST_ANSWER = 32
"""Tokens that every answer may take; with a long reference answer, twice as many as the reference."""


def answer_questions(opened: OpenModel, questions: Sequence[Question], *, batch_size: int) -> Iterator[tuple[int, str]]:
    """Yield the number of each question and the model's likeliest answer, in an order that suits the batches.

    Args:
        opened: The model.
        questions: The questions to ask.
        batch_size: Number of questions answered at once.

    Raises:
        BadSample: An image cannot be read; the message names the sample.
    """
    for start in range(0, len(questions), _WINDOW):
        window = range(start, min(start + _WINDOW, len(questions)))
        features = _encode_images(opened, [questions[number] for number in window], batch_size)
        by_length: dict[int, list[int]] = defaultdict(list)
        for number in window:
            by_length[len(questions[number].prompt.tokens)].append(number)
        for numbers in by_length.values():
            for first in range(0, len(numbers), batch_size):
                batch = numbers[first : first + batch_size]
                yield from zip(batch, _answer(opened, [questions[number] for number in batch], features), strict=True)


def _encode_images(opened: OpenModel, questions: Sequence[Question], batch_size: int) -> dict[Path, torch.Tensor]:
    """Return the features `[tokens per image, hidden]` of every image of the questions."""
    askers = {question.image: question for question in questions if question.image is not None}
    paths = list(askers)
    features: dict[Path, torch.Tensor] = {}
    for first in range(0, len(paths), batch_size):
        part = paths[first : first + batch_size]
        pixels = torch.stack([_read_pixels(opened, path, askers[path]) for path in part])
        features |= zip(part, image_features_of(opened.model, pixels), strict=True)
    return features


def _read_pixels(opened: OpenModel, path: Path, question: Question) -> torch.Tensor:
    assert opened.image_processor is not None
    try:
        return opened.image_processor(read_image(path))
    except DataError as error:
        raise BadSample(str(question.data_path), question.sample, question.identity, str(error)) from None


def _answer(opened: OpenModel, batch: Sequence[Question], features: dict[Path, torch.Tensor]) -> list[str]:
    images = [features[question.image] for question in batch if question.image is not None]
    stop_ids = batch[0].prompt.stop_ids
    streams = [
        TextStream(opened.tokenizer, stop_ids=stop_ids, stop_strings=question.prompt.stop_strings) for question in batch
    ]
    steps = generate(
        opened.model,
        torch.tensor([question.prompt.tokens for question in batch]),
        image_features=torch.stack(images) if images else None,
        sampling=Sampling(max_new_tokens=max(_SHORTEST_ANSWER, *(2 * question.reference_length for question in batch))),
        stop_token_ids=stop_ids,
    )
    answers = [""] * len(batch)
    for step in steps:
        for row, (stream, token) in enumerate(zip(streams, step, strict=True)):
            if not stream.ended and token is not None:
                answers[row] += stream.push(token)
        if all(stream.ended for stream in streams):
            return answers
    return [
        answer if stream.ended else answer + stream.finish() for answer, stream in zip(answers, streams, strict=True)
    ]
