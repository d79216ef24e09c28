"""What data.sequence_length leaves of the samples in a recipe's files."""

from collections.abc import Iterator
from pathlib import Path

from neva_recipes.config import DataError, LlavaDataConfig, Recipe, how_many
from neva_recipes.plan.checks import Found, found
from neva_recipes.plan.cost.rows import SampleLength
from neva_recipes.plan.data.prompt_lengths import MeasuredPrompts, least_lengths, measured_prompts, shortest_of
from neva_recipes.plan.findings import Remedy, error, warning
from neva_recipes.prompts.samples import KINDS, SKIPS_SUCH, kinds_lost

__all__ = ["check_cuts"]

_SHARE = 0.1
"""The largest share of cut samples without a warning."""

_MULTIPLE = 64
"""Proposed lengths are multiples of this."""

_LENGTH, _POSITIONS = "data.sequence_length", "model.language.max_position_embeddings"
_TRAINING, _VALIDATION = "data.data_path", "data.validation_data_path"


def check_cuts(recipe: Recipe, models: Path | None = None) -> Iterator[Found]:
    """Yield an error if cutting leaves nothing to train on, a warning if it removes much.

    An error always rests on the recipe's own tokenizer and on all samples, never on an estimate.

    Args:
        recipe: The recipe.
        models: Folder of the models that have been fetched from the hub; `None` means that of this process.
    """
    if not isinstance(recipe.data, LlavaDataConfig) or recipe.model.vision is None:
        return
    for field in (_TRAINING, _VALIDATION):
        try:
            measured = measured_prompts(recipe, field, models)
            if measured is not None and measured.samples:
                yield from _check(recipe, recipe.data, field, measured, models)
        except DataError:
            continue  # check_data_files reports it


def _check(
    recipe: Recipe, data: LlavaDataConfig, field: str, measured: MeasuredPrompts, models: Path | None
) -> Iterator[Found]:
    length, samples = data.sequence_length, measured.samples
    cut = sum(sample.tokens > length for sample in samples)
    if not cut:
        return
    lost = sum(not sample.prompt.is_used(length) for sample in samples)
    ways, advice = _ways(recipe, samples), _advice(recipe, samples)
    seen = f"of the {how_many(len(samples), 'sample')} looked at"
    torn = sum(sample.prompt.is_torn(length) for sample in samples)
    kinds = _kinds_lost(field, shortest_of(samples), length)
    if kinds and (message := _certain(recipe, field, models)):
        yield found(error("samples-cut", message, recipe, _LENGTH, field, advice=advice), ways)
    elif torn and measured.exact and data.on_bad_sample == "error":
        message = f"{torn:,} {seen} would be cut through or before the image, which makes bad samples of them"
        advice = " or ".join(filter(None, (advice, SKIPS_SUCH)))
        yield found(error("samples-cut", message, recipe, _LENGTH, field, advice=advice), ways)
    elif kinds or cut > _SHARE * len(samples):
        by = "" if measured.exact else ", by an estimate of their tokens"
        taken = f", and {lost / len(samples):.0%} lose all that they teach" if lost else ""
        message = f"{cut / len(samples):.0%} {seen} are longer and lose their end{taken}{by}"
        yield found(warning("samples-cut", message, recipe, _LENGTH, field, advice=advice), ways)


def _kinds_lost(field: str, least: dict[bool, int], length: int) -> set[bool]:
    """Return the kinds of samples that a run needs, but that never fit into a sequence this short."""
    usable = {kind for kind, needed in least.items() if needed <= length}
    return kinds_lost(least.keys(), usable, in_training=field == _TRAINING)


def _certain(recipe: Recipe, field: str, models: Path | None) -> str | None:
    """Return what is wrong if every sample, or every sample of a kind, loses all it teaches; `None` if unknown."""
    least = least_lengths(recipe, field, models) or {}
    kinds = _kinds_lost(field, least, recipe.data.sequence_length)
    if not kinds:
        return None
    kind = f" {KINDS[next(iter(kinds))]}" if len(kinds) == 1 < len(least) else ""
    needed = min(least[kind] for kind in kinds)
    return f"no sample{kind} is left anything to learn: the least that one needs is {needed:,} tokens"


def _ways(recipe: Recipe, samples: tuple[SampleLength, ...]) -> Iterator[Remedy]:
    """Yield longer sequences; for a new model, with more positions if needed."""
    language = recipe.model.language
    for length in _longer(samples):
        if length <= language.longest_sequence:
            yield {_LENGTH: length}
        elif language.source is None:
            yield {_LENGTH: length, _POSITIONS: length}


def _advice(recipe: Recipe, samples: tuple[SampleLength, ...]) -> str:
    """Return what to do if a pretrained model has too few positions for these samples."""
    language = recipe.model.language
    if language.source is None or _longer(samples)[0] <= language.longest_sequence:
        return ""
    return f"shorten the samples: the model has {language.longest_sequence} positions"


def _longer(samples: tuple[SampleLength, ...]) -> list[int]:
    """Return a length that cuts few of the measured samples, and one that cuts none."""
    tokens = sorted(sample.tokens for sample in samples)
    enough = tokens[-1 - int(_SHARE * len(tokens))], tokens[-1]
    return sorted({-(-each // _MULTIPLE) * _MULTIPLE for each in enough})
