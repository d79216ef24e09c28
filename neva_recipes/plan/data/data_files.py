"""Checks of a data file: the form of its samples, its end, and the images of the samples."""

import dataclasses
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from neva_recipes.config import DataError, LlavaDataConfig, Recipe, how_many, image_folder_of, listed_paths
from neva_recipes.plan.checks import Found, found
from neva_recipes.plan.data.file_states import FileState, file_state, named_files, shares_of
from neva_recipes.plan.data.record_check import CheckedDocuments, CheckedRecords, check_documents, check_records
from neva_recipes.plan.findings import Finding, error, field_value, finding, warning
from neva_recipes.plan.tokenizers.tokenizer import known_tokenizer
from neva_recipes.prompts.pictures import looks_texts
from neva_recipes.prompts.samples import SKIPS_SUCH, kinds_lost
from neva_recipes.prompts.templates import get_template
from neva_recipes.sources.content import open_part
from neva_recipes.sources.indexed import indexed_tokens, is_indexed, other_tokenizer
from neva_recipes.sources.json_lines import is_json_lines
from neva_recipes.sources.records import looks_like_json

__all__ = [
    "check_data_files",
    "check_image_folder",
    "check_images",
    "checked_documents",
    "checked_records",
    "records_checked",
]

_FIELDS = ("data.data_path", "data.validation_data_path")

_SET_FOLDER = "set data.image_folder to the folder that the image names are relative to"

_BYTES = 2**16
"""Bytes at the end of a file that are checked."""

_FEWEST = 2
"""Tokens of which one can be predicted."""

_UNPACKED = 4 * 2**20
"""Bytes of compressed files of a field up to which their end is checked; unpacking more takes too long."""


def check_data_files(recipe: Recipe, field: str) -> Iterator[Finding]:
    """Yield what is wrong with the data files that a field names, if they are files."""
    several = len(listed_paths(field_value(recipe, field))) > 1
    lost = _is_lost(recipe, field)
    for path, share in _files(recipe, field).items():
        for each in _check_file(recipe, field, path, share, lost=lost):
            yield dataclasses.replace(each, message=f"{path}: {each.message}") if several else each


def _files(recipe: Recipe, field: str) -> dict[Path, float]:
    return shares_of(named_files(recipe, field))


def _is_lost(recipe: Recipe, field: str) -> bool:
    """Return whether too few of the samples checked, over all files together, can be used for a run."""
    if not isinstance(recipe.data, LlavaDataConfig):
        return False
    try:
        checked = checked_records(recipe, field).values()
    except DataError:
        return False  # _check_file reports it
    there = {kind for file in checked for kind in (False, True) if file.samples[kind]}
    usable = {kind for file in checked for kind in (False, True) if file.usable[kind]}
    return bool(kinds_lost(there, usable, in_training=field == "data.data_path"))


def _check_file(recipe: Recipe, field: str, path: Path, share: float, *, lost: bool) -> Iterator[Finding]:
    try:
        if isinstance(recipe.data, LlavaDataConfig):
            yield from _check_samples(recipe, recipe.data, field, path, share, lost=lost)
        elif is_indexed(path):
            yield from _check_tokens(recipe, field, path)
        elif not _documents(recipe, path, share).found:
            yield error("data-format", "holds no text", recipe, field)
        elif is_json_lines(path):
            _require_end(file_state(path), share)
        else:
            yield from _check_text(recipe, field, path)
    except DataError as problem:
        message = str(problem).removeprefix(f"{path}: ")
        yield error("data-format", message, recipe, field)


def check_images(recipe: Recipe) -> Iterator[Found]:
    """Yield a warning if the model has a vision tower, but training samples checked have no image that is read."""
    field, vision, projector = "data.data_path", recipe.model.vision, recipe.model.projector
    if not isinstance(recipe.data, LlavaDataConfig) or vision is None or projector is None:
        return
    try:
        checked = checked_records(recipe, field).values()
    except DataError:
        return  # check_data_files reports it
    without, with_image = (sum(file.samples[kind] for file in checked) for kind in (False, True))
    other = next((file.image_field for file in checked if file.image_field), None)
    advice = f"call the field image: {other} holds the name of one" if other else ""
    looked_at = "" if all(file.is_whole for file in checked) else " looked at"
    if with_image and other:
        misnamed = sum(file.misnamed for file in checked)
        name, they_are = ("names", "it is") if misnamed == 1 else ("name", "they are")
        message = (
            f"{misnamed:,} of the {with_image + without:,} samples{looked_at} {name} an image, but not in the field "
            f"image: {they_are} trained without it"
        )
        yield found(warning("no-images", message, recipe, field, advice=advice))
    if with_image or not any(file.usable[False] for file in checked):
        return
    frozen = {"the vision tower": not vision.trains, "the projector": not projector.trains}
    learning = [name for name, is_frozen in frozen.items() if not is_frozen]
    learns = "learns" if len(learning) == 1 else "learn"
    idle = f"{' and '.join(learning)} {learns} nothing" if learning else "the vision tower sees nothing"
    samples = f"none of the {without:,} samples{looked_at} has an" if without > 1 else "the one sample has no"
    message = f"{samples} image, which is read from the field image of a sample: {idle}"
    yield found(warning("no-images", message, recipe, field, advice=advice))


def check_image_folder(recipe: Recipe) -> Iterator[Found]:
    """Yield a warning if no image looked for is in the folder that the recipe names, since all names are absolute."""
    field = "data.image_folder"
    if not isinstance(recipe.data, LlavaDataConfig) or recipe.data.image_folder is None:
        return
    try:
        checked = [file for named in _FIELDS for file in checked_records(recipe, named).values()]
    except DataError:
        return  # check_data_files reports it
    first = next((file.first_elsewhere for file in checked if file.elsewhere), None)
    if first is not None and all(file.elsewhere == file.images for file in checked):
        message = f"is not used: every image looked for is elsewhere, by an absolute name, the first is {first:.500}"
        advice = "leave it out, or write the names without their folders"
        yield found(warning("image-folder-unused", message, recipe, field, advice=advice))


def records_checked(recipe: Recipe) -> str:
    """Return as text what of a recipe's data files `check_data_files` checks; empty if none."""
    said: list[str] = []
    if not isinstance(recipe.data, LlavaDataConfig):
        return ""
    for field in _FIELDS:
        for path, share in _files(recipe, field).items():
            try:
                checked = _checked(recipe.data, path, share)
                said.append(f"{checked.extent()} of {path.name}{checked.headers()}")
            except DataError:
                continue  # check_data_files reports it
    return ", ".join(said)


def _checked(data: LlavaDataConfig, path: Path, share: float) -> CheckedRecords:
    return check_records(path, get_template(data.conv_template), image_folder_of(data, path), share, keyed=True)


def checked_records(recipe: Recipe, field: str) -> dict[Path, CheckedRecords]:
    """Return the results for the records of the files that a field names; the recipe trains on conversations.

    Raises:
        DataError: A file cannot be read, or does not have the expected form.
    """
    assert isinstance(recipe.data, LlavaDataConfig)
    return {path: _checked(recipe.data, path, share) for path, share in _files(recipe, field).items()}


def _documents(recipe: Recipe, path: Path, share: float) -> CheckedDocuments:
    return check_documents(path, share, keyed=recipe.data.validation_data_path is not None)


def checked_documents(recipe: Recipe, field: str) -> dict[Path, CheckedDocuments]:
    """Return the results for the documents of the files that a field names; the recipe trains on text.

    Raises:
        DataError: A file cannot be read, or does not have the expected form.
    """
    return {path: _documents(recipe, path, share) for path, share in _files(recipe, field).items()}


def _check_samples(
    recipe: Recipe, data: LlavaDataConfig, field: str, path: Path, share: float, *, lost: bool
) -> Iterator[Finding]:
    checked = _checked(data, path, share)
    if not checked.seen:
        yield error("data-format", "holds no sample", recipe, field)
        return
    if not checked.is_whole:
        _require_end(file_state(path), share)
    # A bad sample ends the run, or is skipped if the recipe says so; skipping all samples ends the run too.
    ends = data.on_bad_sample == "error"
    if checked.bad:
        counted = f" ({checked.bad:,} of {checked.seen:,} samples looked at are bad)" if checked.bad > 1 else ""
        advice = SKIPS_SUCH if ends and not lost else ""
        message = f"{checked.first_bad}{counted}"
        yield finding("error" if ends or lost else "warning", "bad-sample", message, recipe, field, advice=advice)
    if checked.silent:
        yield finding(
            "error" if lost else "warning",
            "sample-without-loss",
            f"{checked.first_silent}; {checked.silent:,} of {how_many(checked.seen, 'sample')} looked at "
            f"{'is' if checked.silent == 1 else 'are'} passed over for that",
            recipe,
            field,
        )
    if checked.missing:
        yield finding(
            "error" if ends or lost else "warning",
            "image-missing",
            checked.missing_images(image_folder_of(data, path)),
            recipe,
            field,
            "data.image_folder",
            advice=_or_skip(_place_advice(recipe, data, path, checked), ends and not lost),
        )
    if checked.unusable:
        yield finding(
            "error" if ends or lost else "warning",
            "image-unusable",
            checked.unusable_images(),
            recipe,
            field,
            "data.image_folder",
            advice=_or_skip("get such images again", ends and not lost),
        )
    yield from _check_meaning(recipe, field, checked)


def _check_meaning(recipe: Recipe, field: str, checked: CheckedRecords) -> Iterator[Finding]:
    """Yield warnings about answers and images that are used, but probably not as they were meant."""
    if len(cells := checked.empty_cells) > 1:
        message = (
            f"{cells[0]}: its answer is the word nan, which an empty cell of a table becomes; "
            f"{len(cells):,} of {how_many(checked.seen, 'sample')} looked at have such an answer"
        )
        advice = "fill the answers in, or leave the samples out"
        yield warning("answers-nan", message, recipe, field, advice=advice)
    if broken := checked.broken_off:
        message = (
            f"{broken[0]}: its answer holds a line break, which ends an answer in this template; "
            f"so do {len(broken):,} of {how_many(checked.seen, 'sample')} looked at"
        )
        advice = "put spaces in place of line breaks, as in cells of a table"
        yield warning("answers-broken-off", message, recipe, field, "data.conv_template", advice=advice)
    said = looks_texts(checked.turned, checked.several, checked.looked_into)
    met, folder = "the first that was met is", "data.image_folder"
    if "turned" in said:
        advice = f"{met} {checked.first_turned}"
        yield warning("images-turned", said["turned"], recipe, field, folder, advice=advice)
    if "several" in said:
        advice = f"{met} {checked.first_several}"
        yield warning("images-several", said["several"], recipe, field, folder, advice=advice)


def _place_advice(recipe: Recipe, data: LlavaDataConfig, path: Path, checked: CheckedRecords) -> str:
    """Return what to do about missing images; another folder only if no image of any file is in the present one."""
    if checked.lost is not None and checked.lost.folder is None:
        return checked.lost.remedy
    if checked.found_images or _other_file_finds_images(recipe, path):
        folder = image_folder_of(data, path)
        return f"put them there, or write names into {path.name} that are absolute or relative to {folder}"
    return _SET_FOLDER if checked.lost is None else checked.lost.remedy


def _other_file_finds_images(recipe: Recipe, path: Path) -> bool:
    for field in _FIELDS:
        try:
            others = [checked for other, checked in checked_records(recipe, field).items() if other != path]
        except DataError:
            continue  # check_data_files reports it
        if any(other.found_images for other in others):
            return True
    return False


def _or_skip(advice: str, applies: bool) -> str:
    return f"{advice}, or {SKIPS_SUCH}" if applies else advice


@lru_cache(maxsize=256)
def _require_end(state: FileState, share: float) -> None:
    """Check by its last bytes that a file of samples is complete.

    Raises:
        DataError: The file is cut off.
    """
    path = state.path
    with open_part(path, max(_BYTES, int(_UNPACKED * share))) as part:
        if not part.is_whole:
            return
        part.file.seek(max(0, part.size - _BYTES))
        is_whole = not part.file.tell()
        end = part.file.read().rstrip()
    if not is_json_lines(path):
        if not end.endswith(b"]"):
            raise DataError("the file ends before the ] of the array: it is truncated")
        return
    _, newline, line = end.rpartition(b"\n")
    if newline or is_whole:
        try:
            json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError) as problem:
            raise DataError(f"its last line is not valid JSON: {problem}") from None


def _check_tokens(recipe: Recipe, field: str, path: Path) -> Iterator[Finding]:
    """Yield what is wrong with an indexed dataset.

    Raises:
        DataError: It cannot be read.
    """
    found = indexed_tokens(path)
    tokenizer = known_tokenizer(recipe)
    if found.tokens < _FEWEST:
        yield error("data-format", "holds no text", recipe, field)
    elif tokenizer is not None:
        problem = other_tokenizer(found, tokenizer.vocabulary_digest, tokenizer.vocab_size)
        if problem is not None:
            yield error("other-tokens", problem, recipe, field, "data.tokenizer")


def _check_text(recipe: Recipe, field: str, path: Path) -> Iterator[Finding]:
    if looks_like_json(path):
        yield warning(
            "data-format",
            "looks like JSON, and with this ending its lines are trained on as they are, brackets and all",
            recipe,
            field,
            advice='use JSONL with a "text" field and the ending .jsonl',
        )
