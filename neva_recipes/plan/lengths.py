"""How long the samples of a recipe are: from its data file where there is one, else assumed."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neva_recipes.config import DataError, LlavaDataConfig, Recipe, RecipeError, expand_path, path_is, tokenizer_name
from neva_recipes.plan._assumed import CHARACTERS_PER_TOKEN, assumed_samples, estimate_tokens
from neva_recipes.plan._sampling import sample_file
from neva_recipes.plan.rows import SampleLength, mean_row_length
from neva_recipes.plan.tokenizer import LocalTokenizer, read_tokenizer
from neva_recipes.prompts.conversation import parse_conversation
from neva_recipes.prompts.encoding import encode_pieces
from neva_recipes.prompts.templates import Piece, Slot, get_template

__all__ = ["Lengths", "SampleLengths", "lengths_of", "sample_lengths", "sequence_lengths"]

_SAMPLE = 500
"""Samples of a data file that are looked at."""


@dataclass(frozen=True)
class Lengths:
    """Lengths of samples, in tokens.

    Attributes:
        tokens: Mean tokens of a sample, image tokens included, padding not.
        padded: Mean tokens of its row in a microbatch, padding included.
        images: Mean images of a sample.
        samples: Samples of the whole file; none where that is not known.
        truncated: Share of samples cut at data.sequence_length.
        source: How this is known, for people.
        measured: Whether it comes from the data file.
    """

    tokens: float
    padded: float
    images: float
    samples: int | None
    truncated: float
    source: str
    measured: bool


@dataclass(frozen=True)
class SampleLengths:
    """Samples of a recipe's data, before they are cut and put together to rows.

    Attributes:
        samples: Their lengths; empty for text, whose rows are all full.
        total: Samples of the whole file; none where that is not known.
        source: How this is known, for people.
        measured: Whether it comes from the data file.
    """

    samples: tuple[SampleLength, ...]
    total: int | None
    source: str
    measured: bool


def sequence_lengths(recipe: Recipe) -> Lengths:
    """Return the lengths of a recipe's samples: of a sample of its data file if there is one, else assumed."""
    return lengths_of(recipe, sample_lengths(recipe))


def lengths_of(recipe: Recipe, found: SampleLengths) -> Lengths:
    """Return the lengths of a recipe's rows, made of samples that were looked at before.

    Args:
        recipe: A recipe; its batch sizes and layout may differ from those of the recipe that `found` is of.
        found: What `sample_lengths` returned.
    """
    longest, samples = recipe.data.sequence_length, found.samples
    if not samples:
        return Lengths(float(longest), float(longest), 0.0, found.total, 0.0, found.source, found.measured)
    return Lengths(
        tokens=sum(min(sample.tokens, longest) for sample in samples) / len(samples),
        padded=mean_row_length(recipe, samples),
        images=sum(sample.has_image for sample in samples) / len(samples),
        samples=found.total,
        truncated=sum(sample.tokens > longest for sample in samples) / len(samples),
        source=found.source,
        measured=found.measured,
    )


def sample_lengths(recipe: Recipe) -> SampleLengths:
    """Return how long some samples of a recipe's data are; a file that cannot be read is as good as none."""
    name = recipe.data.data_path
    path = expand_path(name) if name is not None else None
    reason = "there is no data file"
    if path is not None and path_is(path, Path.is_file):
        try:
            return _measure(recipe, path)
        except DataError:
            reason = "the data file cannot be used"  # check_files says why
    if isinstance(recipe.data, LlavaDataConfig):
        samples, words = assumed_samples(recipe, recipe.data)
        return SampleLengths(tuple(samples), None, f"{words}: assumed, as {reason}", False)
    return SampleLengths((), None, "full sequences", False)


def _measure(recipe: Recipe, path: Path) -> SampleLengths:
    tokenizer = _local_tokenizer(recipe)
    counted = "" if tokenizer else f", tokens estimated as {CHARACTERS_PER_TOKEN:g} characters each"
    if isinstance(recipe.data, LlavaDataConfig):
        sample = sample_file(path, _SAMPLE, lines=path.suffix == ".jsonl")
        count = _prompt_counter(recipe, recipe.data, tokenizer)
        lengths = [count(record) for record in sample.records]
        usable = tuple(length for length in lengths if length is not None)
        if not usable:
            raise DataError(f"{path}: no sample can be used")
        bad = f", {len(lengths) - len(usable)} of them bad" if len(usable) < len(lengths) else ""
        extent = "counted" if sample.exact else "estimated from its size"
        source = f"{len(lengths)} samples of {path.name}{bad}{counted}; number of samples {extent}"
        return SampleLengths(usable, sample.total, source, True)
    sample = sample_file(path, _SAMPLE, lines=True)
    texts = [_text(record, path.suffix == ".jsonl") for record in sample.records]
    documents = [text for text in texts if text is not None and text.strip()]
    tokens = sum(_text_tokens(text, tokenizer) for text in documents) * sample.total / len(sample.records)
    rows = max(1, -(-int(tokens - 1) // recipe.data.sequence_length))
    source = f"full sequences; their number from {len(documents)} documents of {path.name}{counted}"
    return SampleLengths((), rows, source, True)


def _local_tokenizer(recipe: Recipe) -> LocalTokenizer | None:
    """Return the recipe's tokenizer if it lies here and can be read."""
    try:
        path = expand_path(tokenizer_name(recipe))
        return read_tokenizer(path, use_im_start_end=recipe.model.use_im_start_end) if path_is(path) else None
    except (DataError, RecipeError):
        return None  # check_files says what is wrong with it


def _prompt_counter(
    recipe: Recipe, data: LlavaDataConfig, tokenizer: LocalTokenizer | None
) -> Callable[[bytes], SampleLength | None]:
    """Return what counts the tokens of a sample's prompt; none for a sample that training cannot use."""
    template = get_template(data.conv_template)
    image_tokens = recipe.model.vision.tokens_per_image if recipe.model.vision is not None else 0
    marks = 2 if recipe.model.use_im_start_end and template.marks_image else 0

    def count(record: bytes) -> SampleLength | None:
        try:
            fields = json.loads(record)
            has_image = fields.get("image") is not None
            turns = parse_conversation(fields.get("conversations"), has_image=has_image)
            pieces = template.pieces(turns)
            if tokenizer is not None:
                tokens, loss = encode_pieces(pieces, template, tokenizer, image_tokens)
                if not any(loss[1 : data.sequence_length]):
                    return None
                length = len(tokens)
            else:
                length = _estimate(pieces, image_tokens + marks)
        except (DataError, ValueError, RecursionError, AttributeError):
            return None
        return SampleLength(length, _count_words(fields["conversations"]), has_image)

    return count


def _estimate(pieces: list[Piece], image_tokens: int) -> int:
    texts = sum(estimate_tokens(piece.part) for piece in pieces if isinstance(piece.part, str))
    images = sum(piece.part is Slot.IMAGE for piece in pieces)
    others = sum(not isinstance(piece.part, str) for piece in pieces) - images
    return round(texts) + images * image_tokens + others


def _count_words(conversations: list[dict[str, Any]]) -> int:
    return sum(len(turn["value"].split()) for turn in conversations)


def _text(record: bytes, is_json: bool) -> str | None:
    try:
        text = json.loads(record)["text"] if is_json else record.decode("utf-8-sig").strip("\r\n")
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return text if isinstance(text, str) else None


def _text_tokens(text: str, tokenizer: LocalTokenizer | None) -> float:
    if tokenizer is None:
        return estimate_tokens(text) + 2
    ends = (tokenizer.bos_id is not None) + (tokenizer.eos_id is not None)
    return len(tokenizer.encode_text(text, prefix=True)) + ends
