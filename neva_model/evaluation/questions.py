"""The questions of a LLaVA data file, each with its prompt and the answer it should get."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neva_model.data import Prompt, encode_prompt, parse_conversation
from neva_model.data.llava import SampleIndex
from neva_model.data.sample import BadSample
from neva_model.inference.generate import check_length
from neva_model.inference.opening import OpenModel
from neva_recipes.config import DataError

__all__ = ["Question", "read_questions"]


@dataclass(frozen=True)
class Question:
    """One turn of one sample.

    Attributes:
        sample: Position of the sample in the file, from 0.
        identity: The sample's own id, or none.
        turn: Number of the question in its conversation, from 0.
        text: The question.
        reference: The answer it should get.
        reference_length: Tokens of that answer.
        image: File of the image that the conversation is about; none if it is about none.
        prompt: The conversation up to the answer, with the reference answers to earlier questions.
    """

    sample: int
    identity: Any
    turn: int
    text: str
    reference: str
    reference_length: int
    image: Path | None
    prompt: Prompt


def read_questions(opened: OpenModel, data_path: Path, image_folder: Path | None) -> list[Question]:
    """Return every question of a data file, in the order of the file.

    Args:
        opened: The model that is to answer them.
        data_path: LLaVA JSON or JSONL.
        image_folder: Folder that image names are relative to; none means that of the file.

    Raises:
        DataError: The file cannot be read, or a sample cannot be asked of this model; the sample is named.
    """
    if opened.template is None:
        raise DataError(
            f"{opened.source} was trained on plain text: it has no conversation template to ask questions with"
        )
    folder = image_folder if image_folder is not None else data_path.parent
    questions: list[Question] = []
    with tempfile.TemporaryDirectory() as cache:
        index = SampleIndex(data_path, Path(cache))
        for position in range(len(index)):
            record = index.read(position)
            try:
                questions += _questions_of(opened, position, record, folder)
            except DataError as error:
                raise BadSample(str(data_path), position, record.get("id"), str(error)) from None
    return questions


def _questions_of(opened: OpenModel, position: int, record: dict[str, Any], folder: Path) -> Iterator[Question]:
    assert opened.template is not None
    image = _image_of(opened, record.get("image"), folder)
    turns = parse_conversation(record.get("conversations"), has_image=image is not None)
    for number in range(len(turns) // 2):
        history, answer = turns[: 2 * number + 1], turns[2 * number + 1]
        prompt = encode_prompt(history, opened.template, opened.tokenizer, tokens_per_image=opened.tokens_per_image)
        check_length(opened.model, len(prompt.tokens))
        # The image stands in one question, which need not be the first.
        seen = image if any(turn.image for turn in history) else None
        yield Question(
            sample=position,
            identity=record.get("id"),
            turn=number,
            text=history[-1].text,
            reference=answer.text,
            reference_length=len(opened.tokenizer.encode_text(answer.text)),
            image=seen,
            prompt=prompt,
        )


def _image_of(opened: OpenModel, name: Any, folder: Path) -> Path | None:
    if name is None:
        return None
    if not isinstance(name, str) or not name:
        raise DataError(f"image is {name!r:.60}, expected the name of one image file")
    if opened.image_processor is None:
        raise DataError(f"is about the image {name}, but {opened.source} is a text-only model")
    path = folder / name
    try:
        exists = path.is_file()
    except OSError as error:
        raise DataError(f"image file {name!r:.200} cannot be looked up: {error.strerror}") from None
    if not exists:
        raise DataError(f"image file {path} does not exist (image names are relative to --image-folder)")
    return path
