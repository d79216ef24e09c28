"""Made-up training data in LLaVA's real format: JPEG photos, captions, conversations, and a tokenizer.

The words are random, but every sample has as many tokens as was asked for. Samples of one step are equally long and
follow each other in the file, so that nothing is padded and a run meets few shapes.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece
from PIL import Image

__all__ = ["Samples", "write_samples"]

_WORDS = (
    "the cat dog bird tree house road river boat man woman child sits stands runs sees holds wears reads eats red blue "
    "green white black small large old young on under near behind with and then while"
)
_QUESTION = "Describe the image."
_PHOTOS = 64
_PHOTO_SIZE = (640, 480)
_GRAIN = 8
_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


@dataclass(frozen=True)
class Samples:
    """Where the data lies.

    Attributes:
        pretrain: Captions.
        finetune: Conversations of two questions.
        images: The folder of the photos.
        tokenizer: A tokenizer directory.
        vocab_size: Tokens of the tokenizer.
    """

    pretrain: Path
    finetune: Path
    images: Path
    tokenizer: Path
    vocab_size: int


def write_samples(
    directory: Path,
    train_tokenizer: Callable[[Path, list[str]], None],
    *,
    tokens_per_image: int,
    pretrain_lengths: Sequence[int],
    finetune_lengths: Sequence[int],
) -> Samples:
    """Write everything under `directory`.

    Args:
        directory: Where to.
        train_tokenizer: Writes a tokenizer directory for some lines of text.
        tokens_per_image: Positions an image takes.
        pretrain_lengths: Tokens of each caption sample, image included.
        finetune_lengths: Tokens of each conversation, image included.
    """
    randomness = random.Random(0)
    images, tokenizer = directory / "images", directory / "tokenizer"
    _write_photos(images)
    words = _WORDS.split()
    train_tokenizer(tokenizer, [_text(words, 12, randomness) for _ in range(200)])
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer / "tokenizer.model"))
    words = [word for word in words if len(pieces.encode(word)) == 1]
    around_caption = len(pieces.encode("the\n")) - len(pieces.encode("the"))
    around_answers = len(pieces.encode(f"{_SYSTEM} USER: \n{_QUESTION} ASSISTANT: USER: {_QUESTION} ASSISTANT:")) + 2
    pretrain = [
        _sample(number, [_text(words, length - tokens_per_image - around_caption - 1, randomness)])
        for number, length in enumerate(pretrain_lengths)
    ]
    finetune = []
    for number, length in enumerate(finetune_lengths):
        count = length - tokens_per_image - around_answers - 1
        answers = [_text(words, part, randomness) for part in (count // 2, count - count // 2)]
        finetune.append(_sample(number, answers))
    samples = Samples(
        directory / "pretrain.json", directory / "finetune.json", images, tokenizer, pieces.get_piece_size()
    )
    samples.pretrain.write_text(json.dumps(pretrain), encoding="utf-8")
    samples.finetune.write_text(json.dumps(finetune), encoding="utf-8")
    return samples


def _write_photos(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for number in range(_PHOTOS):
        coarse = generator.integers(0, 256, (_PHOTO_SIZE[1] // _GRAIN, _PHOTO_SIZE[0] // _GRAIN, 3), dtype=np.uint8)
        photo = Image.fromarray(coarse).resize(_PHOTO_SIZE, Image.Resampling.BICUBIC)
        photo.save(folder / _photo(number), quality=85)


def _photo(number: int) -> str:
    return f"photo-{number % _PHOTOS:03d}.jpg"


def _text(words: Sequence[str], count: int, randomness: random.Random) -> str:
    return " ".join(randomness.choices(words, k=count))


def _sample(number: int, answers: Sequence[str]) -> dict[str, object]:
    turns = []
    for position, answer in enumerate(answers):
        turns.append({"from": "human", "value": _QUESTION if position else f"<image>\n{_QUESTION}"})
        turns.append({"from": "gpt", "value": answer})
    return {"id": str(number), "image": _photo(number), "conversations": turns}
