"""A Hugging Face directory, or one of the original LLaVA: what it holds and what it can be used for."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from neva_recipes.config import DataError, PlainTable, how_many
from neva_recipes.families import VisionFamily
from neva_recipes.inspection.stored._words import language_shape, vision_shape
from neva_recipes.inspection.stored.stored_model import StoredModel, StoredPart, StoredTensor, Use, part_of_tensors
from neva_recipes.plan.huggingface import (
    Directory,
    image_side,
    open_directory,
    read_image_processor,
    tower_directory,
    vocabulary_rows,
)
from neva_recipes.plan.origins.checkpoints import PARTS
from neva_recipes.plan.tokenizers.tokenizer import LocalTokenizer, read_tokenizer

__all__ = ["read_huggingface"]


def read_huggingface(path: Path) -> StoredModel:
    """Return what a directory holds; only its descriptions and the headers of its weights are read.

    Raises:
        CheckpointError: It holds no model, or one that is damaged or not understood.
    """
    directory = open_directory(path)
    configuration = directory.configuration
    tokenizer, no_tokenizer = _tokenizer(path)
    layout = "original LLaVA" if configuration is None or configuration.is_original else "transformers"
    title = "a projector" if configuration is None else f"a {configuration.architecture}"
    details: PlainTable = {
        "architecture": None if configuration is None else configuration.architecture,
        "layout": layout,
        "vocabulary": None,
    }
    facts: dict[str, str] = {}
    missing = 0
    if configuration is not None and (rows := vocabulary_rows(configuration)) is not None:
        details["vocabulary"] = {
            "rows": rows.rows,
            "rows_of_words": rows.text,
            "tokens": None if tokenizer is None else tokenizer.vocab_size,
            "digest": None if tokenizer is None else tokenizer.vocabulary_digest,
        }
        of_words = "" if rows.text == rows.rows else f", {rows.text:,} of words"
        facts["vocabulary"] = f"{how_many(rows.rows, 'row')}{of_words}"
        facts["tokenizer"] = no_tokenizer if tokenizer is None else how_many(tokenizer.vocab_size, "token")
        if tokenizer is not None:
            missing = max(0, tokenizer.vocab_size - rows.rows)
            facts["tokenizer"] += f", of which {missing:,} have no row" if missing else ""
            facts["digest"] = tokenizer.vocabulary_digest
    stored = {
        name: StoredTensor(tensor.dtype, tensor.shape, tensor.file.name) for name, tensor in directory.tensors.items()
    }
    files = sorted({tensor.file.name for tensor in directory.tensors.values()})
    facts["files"] = files[0] if len(files) == 1 else f"{len(files)}, {files[0]} to {files[-1]}"
    parts = tuple(_parts(directory, stored))
    uses = tuple(_uses(directory, tokenizer, no_tokenizer, missing))
    return StoredModel(
        path, "huggingface", f"{title}, in the layout of {_OF[layout]}", facts, details, parts, stored, uses
    )


_OF = {"original LLaVA": "the original LLaVA", "transformers": "transformers"}


def _tokenizer(path: Path) -> tuple[LocalTokenizer | None, str]:
    """Return the tokenizer of a directory, or why there is none."""
    try:
        return read_tokenizer(path), "only transformers can read its files"
    except DataError as error:
        return None, str(error).removeprefix(f"{path} ").removeprefix(f"{path}/")


def _parts(directory: Directory, stored: dict[str, StoredTensor]) -> Iterator[StoredPart]:
    told, others = directory.configuration, dict(stored)
    for part in PARTS:
        tensors = [others.pop(name) for name in directory.part_tensors(part)]
        if not tensors:
            continue
        values = sum(tensor.values for tensor in tensors)
        kind, shape = None, ""
        if part == "language" and told is not None and told.language is not None:
            kind, shape = told.language.family, language_shape(told.language)
            values -= directory.repeated_values()
        elif part == "vision" and directory.tower_family is not None and directory.tower is not None:
            kind = directory.tower_family.name
            shape = vision_shape(directory.tower, _image_size(directory.path, directory.tower_family))
        elif part == "projector":
            layers = directory.projector_layers
            kind = "linear" if layers == 1 else f"mlp{layers}x_gelu"
            shape = " to ".join(map(str, directory.projector_widths))
        yield part_of_tensors(part, tensors, kind, shape, values)
    if others:
        yield part_of_tensors("not used", others.values())


def _image_size(path: Path, family: VisionFamily) -> int | None:
    """Return the side of the images that a directory's image processor makes, if the tower leaves it to that."""
    settings = read_image_processor(path) if family.interpolates else None
    return None if settings is None else image_side(settings[1], crops=family.crops)


def _uses(directory: Directory, tokenizer: LocalTokenizer | None, no_tokenizer: str, missing: int) -> Iterator[Use]:
    """Yield the fields that can name the directory, and the commands that can open it.

    Args:
        directory: The directory.
        tokenizer: Its tokenizer, `None` if there is none that can be read here.
        no_tokenizer: Why there is none.
        missing: How many of the tokens have no row.
    """
    name, told = shlex.quote(str(directory.path)), directory.configuration
    problems: dict[str, str | None] = {}
    for part in PARTS:
        found = told.problems_with(part) if told is not None else []
        problems[part] = found[0] if found else directory.missing(part)
    refused = dict(problems)
    if tokenizer is not None and missing and problems["language"] is None:
        # A chat makes random rows by itself.
        refused["language"] = (
            f"{missing:,} of its tokens have no row: model.language.vocab_size={tokenizer.vocab_size} beside it adds "
            "random ones"
        )
    words = {"language": "model.language", "vision": "model.vision", "projector": "model.projector.from_pretrained"}
    yield from (Use(words[part], f"{words[part]}={name}", refused[part]) for part in PARTS)
    no_words = None if tokenizer is not None else no_tokenizer
    yield Use("nemo-run chat", f"nemo-run chat {name}", _why_no_chat(directory, problems, no_words))
    yield Use("data.tokenizer", f"data.tokenizer={name}", no_words)


def _why_no_chat(directory: Directory, problems: dict[str, str | None], no_tokenizer: str | None) -> str | None:
    """Return why nobody can talk with the model of a directory."""
    told = directory.configuration
    if problems["language"] is not None or told is None:
        return problems["language"] or "holds no language model"
    sees = told.is_original or told.vision is not None
    is_inside = directory.vision_spelling is not None
    if told.is_original and tower_directory(told.tower_source, weights=not is_inside) is None:
        return (
            f"its vision tower, mm_vision_tower={told.tower_source}, is not a directory here and has not been fetched"
        )
    if sees and not told.is_original and problems["vision"] is not None:
        return problems["vision"]
    if sees and problems["projector"] is not None:
        return problems["projector"]
    return no_tokenizer
