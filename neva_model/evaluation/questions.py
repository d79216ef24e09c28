"""The questions of a LLaVA data file, each with its prompt and its reference answer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neva_model.data import Prompt, encode_prompt
from neva_model.data.sample import BadSample
from neva_model.inference.generate import check_length
from neva_model.inference.opening import OpenModel
from neva_recipes.config import DataError
from neva_recipes.prompts.conversation import NothingToLearn
from neva_recipes.prompts.missing_pictures import missing_named_image
from neva_recipes.prompts.questions import histories, require_sight
from neva_recipes.prompts.samples import read_sample
from neva_recipes.sources.records import scan_samples
from neva_recipes.terminal import tell

__all__ = ["Question", "read_questions"]


@dataclass(frozen=True)
class Question:
    """One turn of one sample.

    Attributes:
        data_path: The file of the sample.
        sample: Position of the sample in the file, from 0.
        identity: The sample's own id, or `None`.
        turn: Number of the question in its conversation, from 0.
        text: The question.
        reference: The expected answer.
        reference_length: Tokens of that answer.
        image: File of the image that the conversation is about; `None` without an image.
        prompt: The conversation up to the answer, with the reference answers to earlier questions.
    """

    data_path: Path
    sample: int
    identity: Any
    turn: int
    text: str
    reference: str
    reference_length: int
    image: Path | None
    prompt: Prompt


def read_questions(opened: OpenModel, data_paths: Sequence[Path], image_folder: Path | None) -> list[Question]:
    """Return every question of some data files, in the order of the files.

    Args:
        opened: The model that will answer them.
        data_paths: LLaVA JSON or JSONL files.
        image_folder: Folder that image names are relative to; `None` means the folder of each file.

    Raises:
        DataError: A file cannot be read, a sample cannot be asked of this model (the message names it), or none has an
            answer.
    """
    if opened.template is None:
        raise DataError(
            f"{opened.source} was trained on plain text: it has no conversation template to ask questions with"
        )
    questions = [
        question for path in data_paths for question in _questions_in(opened, path, image_folder or path.parent)
    ]
    if not questions:
        raise DataError(f"{', '.join(map(str, data_paths))}: no sample has an answer to compare with")
    return questions


def _questions_in(opened: OpenModel, data_path: Path, folder: Path) -> Iterator[Question]:
    """Yield the questions of one file."""
    samples = unanswered = 0
    for position, (_, _, record) in enumerate(scan_samples(data_path)):
        samples += 1
        try:
            yield from _questions_of(opened, data_path, position, record, folder)
        except NothingToLearn:
            unanswered += 1
        except DataError as error:
            raise BadSample(str(data_path), position, record.get("id"), str(error)) from None
    if not samples:
        raise DataError(f"{data_path}: holds no sample")
    if unanswered:
        many = "samples without an answer are" if unanswered > 1 else "sample without an answer is"
        tell("note", f"{data_path}: {unanswered:,} {many} passed over")


def _questions_of(
    opened: OpenModel, data_path: Path, position: int, record: dict[str, object], folder: Path
) -> Iterator[Question]:
    assert opened.template is not None
    turns, system, name = read_sample(record, opened.template)
    image = _image_of(opened, name, folder)
    for number, history in enumerate(histories(turns)):
        answer = turns[len(history)]
        prompt = encode_prompt(
            history, opened.template, opened.tokenizer, tokens_per_image=opened.tokens_per_image, system=system
        )
        check_length(opened.model, len(prompt.tokens))
        # The image belongs to one question, which need not be the first.
        seen = image if any(turn.image for turn in history) else None
        yield Question(
            data_path=data_path,
            sample=position,
            identity=record.get("id"),
            turn=number,
            text=(history[-1].before_image or "") + history[-1].text,
            reference=answer.text,
            reference_length=len(opened.tokenizer.encode_text(answer.text)),
            image=seen,
            prompt=prompt,
        )


def _image_of(opened: OpenModel, name: str | None, folder: Path) -> Path | None:
    require_sight(name, str(opened.source), sees=opened.image_processor is not None)
    if name is None:
        return None
    if problem := missing_named_image(folder, name, "--image-folder"):
        raise DataError(problem)
    return folder / name
