"""The first samples of a data file: of the form that the recipe reads, their images where they should be."""

import codecs
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neva_recipes.config import DataError, LlavaDataConfig, Recipe, expand_path, path_is
from neva_recipes.plan.findings import Finding, Severity, error, field_value, warning
from neva_recipes.prompts.conversation import parse_conversation
from neva_recipes.prompts.records import scan_samples, scan_texts
from neva_recipes.prompts.templates import get_template

__all__ = ["check_data_file"]

_SAMPLES = 5
"""Samples looked at."""

_BYTES = 2**16
"""Plain text looked at."""


def check_data_file(recipe: Recipe, field: str) -> Iterator[Finding]:
    """Yield what is wrong with the begin of the data file that a field names, if it is a file."""
    name = field_value(recipe, field)
    path = expand_path(name) if name is not None else None
    if path is None or not path_is(path, Path.is_file):
        return
    try:
        if isinstance(recipe.data, LlavaDataConfig):
            yield from _check_samples(recipe, recipe.data, field, path)
        elif path.suffix == ".jsonl":
            if next(scan_texts(path), None) is None:
                yield error("data-format", "holds no text", recipe, field)
        else:
            yield from _check_text(recipe, field, path)
    except DataError as problem:
        message = str(problem).removeprefix(f"{path}: ")
        yield error("data-format", message, recipe, field)


def _check_samples(recipe: Recipe, data: LlavaDataConfig, field: str, path: Path) -> Iterator[Finding]:
    samples = [record for _, _, record in itertools.islice(scan_samples(path), _SAMPLES)]
    if not samples:
        yield error("data-format", "holds no sample", recipe, field)
    # A bad sample ends the run, or is skipped where the recipe says so; skipping all of them ends it too.
    folder = expand_path(data.image_folder) if data.image_folder else path.parent
    problems = {number: problem for number, record in enumerate(samples) if (problem := _problem(data, record))}
    fatal = data.on_bad_sample == "error" or len(problems) == len(samples)
    for number, problem in itertools.islice(problems.items(), 1):
        yield _finding("error" if fatal else "warning", "bad-sample", f"sample {number}: {problem}", recipe, field)
    if not path_is(folder, Path.is_dir):
        return  # said of data.image_folder
    images = [
        record["image"] for number, record in enumerate(samples) if record.get("image") and number not in problems
    ]
    missing = [image for image in images if not path_is(folder / image, Path.is_file)]
    if missing:
        fatal = data.on_bad_sample == "error" or len(missing) == len(images)
        yield _finding(
            "error" if fatal else "warning",
            "image-missing",
            f"{len(missing)} of the first {len(images)} images are not in {folder}, the first is {missing[0]}",
            recipe,
            field,
            "data.image_folder",
            advice="set data.image_folder to the folder that the image names are relative to",
        )


def _problem(data: LlavaDataConfig, record: dict[str, Any]) -> str | None:
    """Return why a sample cannot be used, as far as its words tell."""
    image = record.get("image")
    if image is not None and (not isinstance(image, str) or not image):
        return f"image is {image!r:.60}, expected the name of one image file"
    try:
        turns = parse_conversation(record.get("conversations"), has_image=image is not None)
        pieces = get_template(data.conv_template).pieces(turns)
    except DataError as problem:
        return str(problem)
    return None if any(piece.carries_loss for piece in pieces) else "no answer: nothing to learn from"


def _check_text(recipe: Recipe, field: str, path: Path) -> Iterator[Finding]:
    try:
        with path.open("rb") as file:
            begin = codecs.getincrementaldecoder("utf-8-sig")().decode(file.read(_BYTES))
    except OSError as problem:
        raise DataError(f"cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError as problem:
        raise DataError(f"is not UTF-8 text: {problem.reason}") from None
    if not begin.strip():
        yield error("data-format", "holds no text", recipe, field)
    elif begin.lstrip()[0] in "[{" and '"' in begin:
        yield warning(
            "data-format",
            "looks like JSON, but every line of a file with this ending is read as a document",
            recipe,
            field,
            advice='use JSONL with a "text" field and the ending .jsonl',
        )


def _finding(severity: Severity, code: str, message: str, recipe: Recipe, *fields: str, advice: str = "") -> Finding:
    make = error if severity == "error" else warning
    return make(code, message, recipe, *fields, advice=advice)
