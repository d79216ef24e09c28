"""The lengths of the prompts of a recipe's conversations, measured on some samples of its files before any is cut."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from neva_recipes.config import ConvTemplate, DataError, LlavaDataConfig, Recipe
from neva_recipes.families import image_length
from neva_recipes.plan.cost.rows import SampleLength
from neva_recipes.plan.data.assumed import estimate_tokens
from neva_recipes.plan.data.file_states import FileState, file_state, named_files
from neva_recipes.plan.data.sampling import FileSample, sample_file, spread
from neva_recipes.plan.tokenizers.tokenizer import LocalTokenizer, known_tokenizer
from neva_recipes.prompts.conversation import Conversation
from neva_recipes.prompts.encoding import check_template, encode_pieces
from neva_recipes.prompts.extent import PromptExtent, extent_of
from neva_recipes.prompts.samples import count_words, read_sample
from neva_recipes.prompts.templates import Part, Slot, Template, get_template
from neva_recipes.sources.content import open_part
from neva_recipes.sources.json_lines import is_json_lines
from neva_recipes.sources.records import scan_samples

__all__ = [
    "SAMPLE",
    "MeasuredPrompts",
    "PromptMaker",
    "least_lengths",
    "measured_prompts",
    "shortest_of",
]

SAMPLE = 500
"""Number of samples measured for the files of a field."""

_SMALL = 2**19
"""Bytes of the files of a field, unpacked, up to which every prompt is built if a decision depends on it; a tokenizer
takes some tenths of a second for that."""


@dataclass(frozen=True)
class MeasuredPrompts:
    """The prompts of some samples of the files that a field names.

    Attributes:
        samples: The samples that a sequence of some length can hold.
        looked_at: Samples measured, including unusable ones.
        total: Samples of the files.
        counted: Whether the total was counted; otherwise it is an estimate.
        from_begin: Whether only the beginning of a file was measured.
        exact: Whether the recipe's tokenizer made the tokens; otherwise they are an estimate.
    """

    samples: tuple[SampleLength, ...]
    looked_at: int
    total: int
    counted: bool
    from_begin: bool
    exact: bool

    @property
    def is_whole(self) -> bool:
        """Whether every sample was measured."""
        return self.counted and self.looked_at == self.total


_Turn = Literal["opening", "asking", "answer"]
"""The part of a template that a turn fills."""


@dataclass(frozen=True)
class PromptMaker:
    """Makes the prompt of a record; without a tokenizer, its tokens are estimated.

    Attributes:
        template: The template of the prompt.
        tokenizer: The model's tokenizer, which has the template's tokens; `None` estimates.
        image_tokens: Positions that an image takes, without the tokens around it.
        marks: Tokens around an image.
    """

    template: Template
    tokenizer: LocalTokenizer | None
    image_tokens: int
    marks: int

    def sample(self, fields: Any) -> SampleLength | None:
        """Return the length of a record's prompt; `None` if no sequence of any length can hold it."""
        try:
            conversation = read_sample(fields, self.template)
            prompt = self.extent(conversation)
        except (DataError, ValueError, RecursionError, AttributeError):
            return None
        if prompt.least is None:
            return None
        return SampleLength(prompt, count_words(fields), conversation.image is not None)

    def extent(self, conversation: Conversation) -> PromptExtent:
        """Return the extent of the prompt of a conversation.

        Raises:
            DataError: The tokenizer cannot encode it.
        """
        if self.tokenizer is None:
            return self._estimate(conversation)
        pieces = self.template.pieces(conversation.turns, conversation.system)
        return extent_of(*encode_pieces(pieces, self.template, self.tokenizer, self.image_tokens))

    def _estimate(self, conversation: Conversation) -> PromptExtent:
        """Return the extent by an estimate of each text, which takes a fraction of the time of building the prompt."""
        length, learns_at, image_end = 0.0, None, 0.0
        image, system = self.image_tokens + self.marks, conversation.system
        for number, turn in enumerate(conversation.turns):
            kind: _Turn = "asking" if number else "opening"
            if turn.role == "gpt":
                kind = "answer"
                if learns_at is None and turn.text and not turn.text.isspace():
                    learns_at = max(1, round(length))
            before, holds_image, behind = _around(self.template.name, kind, system, turn.label)
            length += before
            if turn.image and turn.before_image is not None:
                length += estimate_tokens(turn.before_image)
            if holds_image or turn.image:
                length += image
                image_end = length
            if not holds_image:
                length += estimate_tokens(turn.text)
                length += estimate_tokens("\n") if turn.image and turn.before_image is None and turn.text else 0
            length += behind
        return PromptExtent(round(length), learns_at, round(image_end))


@lru_cache(maxsize=256)
def _around(name: ConvTemplate, kind: _Turn, system: str | None, label: str | None) -> tuple[float, bool, float]:
    """Return the tokens before and behind what a turn says, and whether an image stands in its place."""
    template = get_template(name)  # the name is a key that costs less than the template
    parts: tuple[Part, ...] = {
        "opening": template.opening_for(system),
        "asking": template.asking or (),
        "answer": template.answer,
    }[kind]
    texts: dict[Part, str | None] = {
        Slot.SYSTEM: template.system if system is None else system,
        Slot.LABEL: template.label if label is None else label,
        Slot.START: "",  # no token
    }
    at = next((place for place, part in enumerate(parts) if part in (Slot.MESSAGE, Slot.IMAGE)), len(parts))
    filled = [part if isinstance(part, str) else texts.get(part, part) for part in parts]
    costs = [estimate_tokens(part or "") if isinstance(part, str | None) else 1.0 for part in filled]
    return sum(costs[:at]), parts[at : at + 1] == (Slot.IMAGE,), sum(costs[at + 1 :])


_State = tuple[FileState, ...]


def measured_prompts(recipe: Recipe, field: str, models: Path | None = None) -> MeasuredPrompts | None:
    """Return the prompts of some samples of the files that a field names; `None` if no file is here.

    The same files are measured once, whatever the sequence length of the recipe.

    Args:
        recipe: The recipe.
        field: The field.
        models: Folder of the models that have been fetched from the hub; `None` means that of this process.

    Raises:
        DataError: A file cannot be read, or does not have the expected form.
    """
    state, maker = _state(recipe, field), _maker(recipe, models)
    return _measure(state, maker) if state and maker is not None else None


def least_lengths(recipe: Recipe, field: str, models: Path | None = None) -> dict[bool, int] | None:
    """Return the shortest sequence that holds some sample with an image (True) and without one (False).

    It takes every sample of the files that a field names. A kind without a usable sample is left out.

    Args:
        recipe: The recipe.
        field: The field.
        models: As for `measured_prompts`.

    Returns:
        The lengths; `None` if there are no files, they are too large, or the recipe's tokenizer is not here or lacks
            tokens of the template.

    Raises:
        DataError: A file cannot be read, or does not have the expected form.
    """
    measured = measured_prompts(recipe, field, models)
    if measured is None or not measured.exact:
        return None
    if measured.is_whole:
        return shortest_of(measured.samples)
    maker = _maker(recipe, models)
    return _least(_state(recipe, field), maker) if maker is not None else None


def shortest_of(samples: Iterable[SampleLength]) -> dict[bool, int]:
    """Return the shortest sequence that holds one of the samples with an image (True) and without one (False)."""
    least: dict[bool, int] = {}
    for sample in samples:
        if (needed := sample.prompt.least) is not None:
            least[sample.has_image] = min(least.get(sample.has_image, needed), needed)
    return least


def _maker(recipe: Recipe, models: Path | None) -> PromptMaker | None:
    if not isinstance(recipe.data, LlavaDataConfig):
        return None
    template = get_template(recipe.data.conv_template)
    image_tokens = image_length(recipe.model.vision) if recipe.model.vision is not None else 0
    marks = 2 if recipe.model.use_im_start_end and template.marks_image else 0
    tokenizer = known_tokenizer(recipe, models)
    if tokenizer is not None:
        try:
            check_template(template, tokenizer)
        except DataError:
            tokenizer = None  # check_files reports it
    return PromptMaker(template, tokenizer, image_tokens, marks)


def _state(recipe: Recipe, field: str) -> _State:
    return tuple(file_state(path) for path in named_files(recipe, field))


@lru_cache(maxsize=64)
def _measure(state: _State, maker: PromptMaker) -> MeasuredPrompts:
    paths = [file.path for file in state]
    found = [sample_file(path, SAMPLE, lines=is_json_lines(path), files=len(paths)) for path in paths]
    total = sum(sample.total for sample in found)
    samples = [maker.sample(_fields(record)) for sample in found for record in _share(sample, total)]
    return MeasuredPrompts(
        tuple(sample for sample in samples if sample is not None),
        len(samples),
        total,
        counted=all(sample.exact for sample in found),
        from_begin=any(sample.from_begin for sample in found),
        exact=maker.tokenizer is not None,
    )


def _fields(record: bytes) -> Any:
    try:
        return json.loads(record)
    except (ValueError, RecursionError):
        return None


def _share(sample: FileSample, total: int) -> list[bytes]:
    """Return as many records of a file as its share of all records, so that each file has its proper weight."""
    if sample.total == total:
        return sample.records
    return spread(sample.records, max(1, round(SAMPLE * sample.total / total)))


@lru_cache(maxsize=64)
def _least(state: _State, maker: PromptMaker) -> dict[bool, int] | None:
    left = _SMALL
    if sum(file.size for file in state) > left:
        return None
    for file in state:
        with open_part(file.path, left) as part:
            if not part.is_whole or (left := left - part.size) < 0:
                return None
    samples = (maker.sample(record) for file in state for *_, record in scan_samples(file.path))
    return shortest_of(sample for sample in samples if sample is not None)
