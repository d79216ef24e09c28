"""Samples that a field names several times: files that are copies of each other, and copies of samples in any files."""

import os
from collections.abc import Hashable, Iterator, Sequence

from neva_recipes.config import (
    DataError,
    LlavaDataConfig,
    Recipe,
    expand_path,
    how_many,
    image_folder_of,
    listed_paths,
)
from neva_recipes.plan.checks import Found, found
from neva_recipes.plan.data.data_files import checked_records
from neva_recipes.plan.findings import field_value, warning
from neva_recipes.plan.trained.same_files import TRAINING, VALIDATION, is_same_file

__all__ = ["check_repeats", "first_copy", "repeats_text"]

_SHARE = 0.1
"""The largest share of copies without a word; large data sets hold some samples twice."""


def check_repeats(recipe: Recipe) -> Iterator[Found]:
    """Yield a warning for each file that a field names again, and if many of its samples are copies of others."""
    for field in (TRAINING, VALIDATION):
        named = listed_paths(field_value(recipe, field))
        kept: list[str] = []
        copies: dict[str, str] = {}
        for name in named:
            first = next((each for each in kept if is_same_file(expand_path(name), expand_path(each))), None)
            if first is None:
                kept.append(name)
            else:
                copies[name] = first
        if copies:
            told = ", ".join(f"{name} is {first} again, or a copy of it" for name, first in copies.items())
            rest = kept if len(kept) > 1 else kept[0]
            yield found(warning("samples-repeat", f"{told}: its samples count twice", recipe, field), [{field: rest}])
        elif (copied := _copies_of_samples(recipe, field)) is not None:
            text, image = copied
            advice = "take the copies out, or train for more epochs instead" if field == TRAINING else "take them out"
            advice += "" if image is None else f"; the first of them has the image {image}"
            yield found(warning("samples-repeat", text, recipe, field, advice=advice))


def _copies_of_samples(recipe: Recipe, field: str) -> tuple[str, str | None] | None:
    """Return as text how many of the samples looked at are copies, and the image of the first; `None` if few are."""
    data = recipe.data
    if not isinstance(data, LlavaDataConfig):
        return None  # texts repeat short lines
    try:
        checked = checked_records(recipe, field)
    except DataError:
        return None  # check_data_files reports it
    samples = [
        (sample.keys[0], sample.image and os.path.abspath(image_folder_of(data, path) / sample.image))  # noqa: PTH100
        for path, file in checked.items()
        for sample in file.keyed
    ]
    looked_at = "" if all(file.is_whole for file in checked.values()) else " looked at"
    text, first = repeats_text(samples, "sample", looked_at), first_copy(samples)
    return None if first is None or not text else (text, samples[first][1])


def first_copy(samples: Sequence[Hashable]) -> int | None:
    """Return the number of the first sample that is a copy of an earlier one, from 0; `None` if none is."""
    seen = set[Hashable]()
    for number, sample in enumerate(samples):
        if sample in seen:
            return number
        seen.add(sample)
    return None


def repeats_text(samples: Sequence[Hashable], kind: str, looked_at: str = "") -> str:
    """Return as text how many samples are copies of an earlier one; empty if these are a tenth at most.

    Args:
        samples: What identifies each sample: its words and its image.
        kind: What they are called.
        looked_at: Added to their number if there are more samples.
    """
    copies = len(samples) - len(set(samples))
    if copies <= _SHARE * len(samples):
        return ""
    are = f"is a copy of another {kind}" if copies == 1 else f"are copies of other {kind}s"
    return f"{copies:,} of the {how_many(len(samples), kind)}{looked_at} {are}, with the same words and the same image"
