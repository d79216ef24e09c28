"""Writes a Hugging Face directory whose model has a row for every token of another tokenizer."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open

from neva_model.checkpoints.extending.growth import Extension, Growth, growth_of
from neva_model.checkpoints.extending.new_tokens import read_here
from neva_model.checkpoints.extending.rows import ReadRows, RowInit
from neva_model.checkpoints.extending.tokenizer_files import VOCABULARY_FILES, copy_tokenizer
from neva_model.checkpoints.extending.weight_files import LongerMatrix, copy_weights
from neva_model.checkpoints.huggingface.descriptions import description_files
from neva_recipes.config import CheckpointError
from neva_recipes.plan.huggingface import Directory, is_huggingface, open_directory, read_object
from neva_recipes.storage.exports import (
    DIGESTS_FILE,
    exported_checkpoint,
    exported_training,
    require_exported_file,
    require_new_directory,
    unfinished_export,
    write_digests,
)
from neva_recipes.storage.whole import copy_file, written_whole
from neva_recipes.tokenizers import find_tokenizer

__all__ = ["extend_vocabulary"]


def extend_vocabulary(
    source: Path,
    target: Path,
    tokenizer: str,
    *,
    init: RowInit = "pieces",
    least_rows: int = 1,
    divisible_by: int = 1,
) -> Extension:
    """Give the language model of a directory a row for every token of another tokenizer.

    Rows that have a token keep their values, byte for byte. The directory gets its name only when it is complete.

    Args:
        source: The directory of a language model, with the tokenizer of its rows.
        target: The directory to write; must not exist yet.
        tokenizer: The other tokenizer: a directory, a hub name, or a SentencePiece file.
        init: How the rows of new tokens are made.
        least_rows: The number of rows if the tokenizer needs fewer.
        divisible_by: The number of rows becomes a multiple of it: Megatron's make_vocab_size_divisible_by times the
            tensor-parallel size.

    Raises:
        CheckpointError: The directory holds no language model alone, or the target exists or cannot be written.
        DataError: The tokenizer cannot be read, moves an id of the old one, or has no new token.
    """
    require_new_directory(target)
    directory = _open(source)
    with written_whole(target, "directory") as unfinished:
        copy_tokenizer(find_tokenizer(tokenizer), tokenizer, source, unfinished)
        growth, matrices = _longer_matrices(directory, unfinished, tokenizer, init, least_rows, divisible_by)
        files = {tensor.file for tensor in directory.tensors.values()}
        for file in files:
            require_exported_file(file)
        copy_weights(files, unfinished, matrices)
        left_out = _copy_others(source, unfinished, growth.rows)
        if (training := exported_training(source)) is not None:
            write_digests(unfinished, exported_checkpoint(source), training)
    # The hidden folder of the target is in the source if the target is.
    left_out = [name for name in left_out if name != unfinished_export(target).name]
    return Extension(target, growth.tokens, growth.before, growth.rows, tuple(matrices), tuple(left_out))


def _longer_matrices(
    directory: Directory, folder: Path, name: str, init: RowInit, least_rows: int, divisible_by: int
) -> tuple[Growth, dict[str, LongerMatrix]]:
    """Return how the model grows, and the matrices with their new rows, by the names of their tensors.

    Args:
        directory: The model.
        folder: The folder that the new tokenizer has been copied to.
        name: The name that the user gave for it.
        init: How the rows of new tokens are made.
        least_rows: The number of rows if the tokenizer needs fewer.
        divisible_by: What the number of rows is a multiple of.
    """
    old, new = read_here(directory.path), read_here(folder)
    new.name = name  # for messages
    before = directory.tensors[directory.vocabulary_tensors[0]].shape[0]
    growth = growth_of(directory.path, before, old, new, folder, least_rows=least_rows, divisible_by=divisible_by)
    matrices = {}
    for tensor in directory.vocabulary_tensors:
        with _reading(directory, tensor) as read:
            matrices[tensor] = LongerMatrix(growth.rows, growth.new_rows(read, init))
    return growth, matrices


def _open(source: Path) -> Directory:
    if not is_huggingface(source):
        raise CheckpointError(f"{source}: is no Hugging Face directory")
    directory = open_directory(source, thorough=True)
    configuration = directory.configuration
    has_eyes = configuration is not None and (configuration.tower_family is not None or configuration.is_original)
    if configuration is None or configuration.language is None or has_eyes:
        held = "projector" if configuration is None else configuration.architecture
        raise CheckpointError(f"{source}: holds a {held}, expected a language model alone: extend it before it sees")
    for problem in (*configuration.problems_with("language"), directory.missing("language")):
        if problem is not None:
            raise CheckpointError(f"{source}: {problem}")
    for tensor in directory.tensors.values():
        if tensor.file.suffix != ".safetensors":
            raise CheckpointError(f"{tensor.file}: expected safetensors, which save_pretrained of transformers writes")
    return directory


@contextmanager
def _reading(directory: Directory, name: str) -> Iterator[ReadRows]:
    with safe_open(directory.tensors[name].file, framework="pt") as file:
        matrix = file.get_slice(name)

        def read(begin: int, end: int) -> torch.Tensor:
            rows: torch.Tensor = matrix[begin:end]
            return rows

        yield read


def _copy_others(source: Path, target: Path, rows: int) -> list[str]:
    """Copy what is neither weights nor tokenizer, with the new number of rows; return what is left out."""
    left_out, descriptions = [], description_files(source)
    done = {entry.name for entry in target.iterdir()} | VOCABULARY_FILES | {DIGESTS_FILE, "config.json"}
    for entry in sorted(source.iterdir()):
        if entry.name in done:
            continue
        # Weights in other formats would have the old rows.
        if entry.name in descriptions:
            copy_file(entry, target / entry.name)
        else:
            left_out.append(entry.name)
    config = read_object(source / "config.json", "a model's configuration")
    text = json.dumps({**config, "vocab_size": rows}, indent=2)
    (target / "config.json").write_text(text + "\n", encoding="utf-8")
    return left_out
