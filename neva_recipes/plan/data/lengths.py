"""The lengths of a recipe's samples: from its data file if there is one, otherwise assumed."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from neva_recipes.config import DataError, LlavaDataConfig, Recipe, TextDataConfig, how_many
from neva_recipes.plan.cost.rows import SampleLength, mean_row_length
from neva_recipes.plan.cost.schedule import run_steps
from neva_recipes.plan.data.assumed import CHARACTERS_PER_TOKEN, assumed_samples, estimate_tokens
from neva_recipes.plan.data.file_states import named_files
from neva_recipes.plan.data.prompt_lengths import SAMPLE, measured_prompts
from neva_recipes.plan.data.sampling import sample_file
from neva_recipes.plan.tokenizers.tokenizer import LocalTokenizer, known_tokenizer
from neva_recipes.sources.indexed import indexed_tokens, is_indexed
from neva_recipes.sources.json_lines import is_json_lines

__all__ = ["Lengths", "SampleLengths", "lengths_of", "rows_of", "sample_lengths", "sequence_lengths"]


@dataclass(frozen=True)
class Lengths:
    """Lengths of samples, in tokens.

    Attributes:
        tokens: Mean tokens of a sample, with image tokens, without padding.
        padded: Mean tokens of its row in a micro batch, with padding.
        images: Mean images of a sample.
        samples: Samples of the whole file; `None` if unknown.
        truncated: Share of samples cut at data.sequence_length.
        source: How this is known, as text.
        measured: Whether it comes from the data file.
    """

    tokens: float
    padded: float
    images: float
    samples: int | None
    truncated: float
    source: str
    measured: bool

    @property
    def padding(self) -> float:
        """Share of padding in the tokens of rows; never below 0, since the two means may differ by rounding."""
        return max(0.0, 1.0 - self.tokens / self.padded)


@dataclass(frozen=True)
class SampleLengths:
    """The samples of a recipe's data, before they are cut and put into rows.

    Attributes:
        samples: Their lengths, including samples that lose everything by a cut; empty for text, whose rows are full.
        total: Samples of the whole file; `None` if unknown.
        source: How this is known, as text.
        measured: Whether it comes from the data file.
        text_tokens: About how many tokens each file has, of which text makes rows of any length; empty for
            conversations, or if unknown.
    """

    samples: tuple[SampleLength, ...]
    total: int | None
    source: str
    measured: bool
    text_tokens: tuple[float, ...] = ()


def sequence_lengths(recipe: Recipe) -> Lengths:
    """Return the lengths of a recipe's samples: from some of its data file if there is one, otherwise assumed."""
    return lengths_of(recipe, sample_lengths(recipe))


def lengths_of(recipe: Recipe, found: SampleLengths) -> Lengths:
    """Return the lengths of a recipe's rows, made of samples that were measured before.

    Args:
        recipe: A recipe; its batch sizes and layout may differ from those of the recipe that `found` belongs to.
        found: The result of `sample_lengths`.
    """
    longest = recipe.data.sequence_length
    # If no sample can be used there is no training; then the lengths are those of all samples.
    samples = tuple(sample for sample in found.samples if sample.prompt.is_used(longest)) or found.samples
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


def sample_lengths(recipe: Recipe, *, can_read: bool = True, models: Path | None = None) -> SampleLengths:
    """Return the lengths of some samples of a recipe's data; a file that cannot be read counts as no file.

    Args:
        recipe: The recipe.
        can_read: Whether its data can be read; False if a check has found that it cannot.
        models: Folder of the models that have been fetched from the hub; `None` means that of this process.
    """
    paths = named_files(recipe, "data.data_path")
    reason = "the data file cannot be used" if paths else "there is no data file"
    if paths and can_read:
        try:
            measure = _conversations if isinstance(recipe.data, LlavaDataConfig) else _texts
            return measure(recipe, paths, models)
        except DataError:
            pass  # check_files reports it
    if isinstance(recipe.data, LlavaDataConfig):
        samples, words = assumed_samples(recipe, recipe.data)
        return SampleLengths(tuple(samples), None, f"{words}: assumed, as {reason}", False)
    return SampleLengths((), None, "full sequences", False)


def rows_of(text_tokens: Iterable[float], sequence_length: int) -> int:
    """Return how many rows text makes; every file begins a row, and its first token is not predicted."""
    return sum(max(1, math.ceil(int(tokens - 1) / sequence_length)) for tokens in text_tokens)


def _conversations(recipe: Recipe, paths: list[Path], models: Path | None) -> SampleLengths:
    found = measured_prompts(recipe, "data.data_path", models)
    if found is None or not found.samples:
        raise DataError("no sample can be used")
    bad = found.looked_at - sum(sample.prompt.is_used(recipe.data.sequence_length) for sample in found.samples)
    extent = "counted" if found.counted else "estimated from its size"
    source = (
        f"{how_many(found.looked_at, 'sample')} of {_named(paths)}{_of_begin(paths, found.from_begin)}"
        f"{f', {bad} of them unusable' if bad else ''}{_counted(exact=found.exact)}; number of samples {extent}"
    )
    return SampleLengths(found.samples, found.total, source, True)


def _texts(recipe: Recipe, paths: list[Path], models: Path | None) -> SampleLengths:
    if all(map(is_indexed, paths)):
        tokens = tuple(float(indexed_tokens(path).tokens) for path in paths)
        source = f"full sequences; tokens counted in {_named(paths)}{_passes_of_each(recipe, paths, tokens)}"
        return SampleLengths((), rows_of(tokens, recipe.data.sequence_length), source, True, tokens)
    tokenizer = known_tokenizer(recipe, models)
    looked_at, whole = 0, list[float]()
    found = [sample_file(path, max(1, SAMPLE // len(paths)), lines=True, files=len(paths)) for path in paths]
    for path, sample in zip(paths, found, strict=True):
        texts = [_text(record, is_json_lines(path)) for record in sample.records]
        documents = [text for text in texts if text is not None and text.strip()]
        if not documents:
            raise DataError(f"{path}: no text found")
        whole.append(sum(_text_tokens(text, tokenizer) for text in documents) * sample.total / len(sample.records))
        looked_at += len(documents)
    begin = _of_begin(paths, any(sample.from_begin for sample in found))
    source = f"full sequences; their number from {how_many(looked_at, 'document')} of {_named(paths)}{begin}"
    rows = rows_of(whole, recipe.data.sequence_length)
    return SampleLengths((), rows, f"{source}{_counted(exact=tokenizer is not None)}", True, tuple(whole))


def _passes_of_each(recipe: Recipe, paths: list[Path], tokens: tuple[float, ...]) -> str:
    """Return as text which share of a run each of several indexed datasets has, and how often it is passed over."""
    data = recipe.data
    weights = (data.blend if isinstance(data, TextDataConfig) else None) or tokens
    rows = [rows_of([count], data.sequence_length) for count in tokens]
    steps = run_steps(recipe, sum(rows))
    if len(paths) == 1 or len(weights) != len(paths) or steps is None or data.dataloader_type == "single":
        return ""
    shares = [weight / sum(weights) for weight in weights]
    passes = [steps * data.global_batch_size * share / count for share, count in zip(shares, rows, strict=True)]
    told = zip(paths, shares, passes, strict=True)
    return "; " + "; ".join(
        f"{path.parent.name}/{path.name} is {share:.2g} of the samples, in {count:.2g} passes"
        for path, share, count in told
    )


def _named(paths: list[Path]) -> str:
    return paths[0].name if len(paths) == 1 else f"{len(paths)} files"


def _of_begin(paths: list[Path], from_begin: bool) -> str:
    if not from_begin:
        return ""
    return ", from its begin" if len(paths) == 1 else ", from the begin of compressed ones"


def _counted(*, exact: bool) -> str:
    return "" if exact else f", tokens estimated as {CHARACTERS_PER_TOKEN:g} characters each"


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
