"""The first samples of a data file and its end: of the form that the recipe reads, their images as they should be."""

import codecs
import itertools
import json
import re
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
"""Plain text looked at, and bytes at the end of a file."""

_IMAGE = re.compile(
    rb"\xff\xd8\xff|\x89PNG|GIF8|BM|RIFF....WEBP|II[*+]\0|MM\0[*+]|II\0\*|MM\*\0|P[0-7Ffy]"
    rb"|....ftyp(avi[fs]|mif1|msf1)|\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    re.DOTALL,
)
"""How files of the formats begin that training reads: JPEG, PNG, GIF, BMP, WebP, TIFF, PPM, AVIF, JPEG 2000."""


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
                _require_end(path)
        else:
            yield from _check_text(recipe, field, path)
    except DataError as problem:
        message = str(problem).removeprefix(f"{path}: ")
        yield error("data-format", message, recipe, field)


def _check_samples(recipe: Recipe, data: LlavaDataConfig, field: str, path: Path) -> Iterator[Finding]:
    samples = [record for _, _, record in itertools.islice(scan_samples(path), _SAMPLES)]
    if not samples:
        yield error("data-format", "holds no sample", recipe, field)
        return
    _require_end(path)
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
    fatal = data.on_bad_sample == "error"
    missing = [image for image in images if not path_is(folder / image, Path.is_file)]
    if missing:
        yield _finding(
            "error" if fatal or len(missing) == len(images) else "warning",
            "image-missing",
            f"{len(missing)} of the first {len(images)} images are not in {folder}, the first is {missing[0]}",
            recipe,
            field,
            "data.image_folder",
            advice="set data.image_folder to the folder that the image names are relative to",
        )
    unusable = {image: reason for image in images if image not in missing and (reason := _no_image(folder / image))}
    for image, reason in itertools.islice(unusable.items(), 1):
        yield _finding(
            "error" if fatal or len(unusable) == len(set(images)) else "warning",
            "image-unusable",
            f"{len(unusable)} of the first {len(set(images))} images cannot be used, the first is {image}: {reason}",
            recipe,
            field,
            "data.image_folder",
            advice="get such images again",
        )


def _no_image(path: Path) -> str | None:
    """Return why a file is no image, as far as its first bytes tell."""
    try:
        with path.open("rb") as file:
            begin = file.read(16)
    except OSError as problem:
        return f"{problem.strerror}"
    if not begin:
        return "it is empty"
    return None if _IMAGE.match(begin) else "it is of no known image format"


def _require_end(path: Path) -> None:
    """Check that a file of samples is whole, as far as its last bytes tell.

    Raises:
        DataError: It is cut off.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _BYTES))
            is_whole = not file.tell()
            end = file.read().rstrip()
    except OSError as problem:
        raise DataError(f"cannot be read: {problem.strerror}") from None
    if path.suffix != ".jsonl":
        if not end.endswith(b"]"):
            raise DataError("the file ends before the ] of the array: it is truncated")
        return
    _, newline, line = end.rpartition(b"\n")
    if newline or is_whole:
        try:
            json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError) as problem:
            raise DataError(f"its last line is not valid JSON: {problem}") from None


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
