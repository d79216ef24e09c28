"""Writes a checkpoint whose model has a row for every token of another tokenizer."""

import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path

import torch

from neva_model.checkpoints.converting.kept import copy_kept
from neva_model.checkpoints.extending.growth import Extension, Growth, growth_of
from neva_model.checkpoints.extending.new_tokens import read_here
from neva_model.checkpoints.extending.rows import RowInit
from neva_model.checkpoints.extending.tokenizer_files import copy_tokenizer, remove_tokenizer
from neva_model.checkpoints.information import (
    CheckpointInformation,
    read_information,
    saved_recipe,
    with_newest,
)
from neva_model.checkpoints.resharding.rewriting import moved, of_one_replica, recorded, write_stored
from neva_model.checkpoints.weights import StoredWeights, Written, all_stored, write_without_values
from neva_model.checkpoints.weights.names import vocabulary_names
from neva_recipes.config import (
    CheckpointError,
    DataError,
    PlainTable,
    Recipe,
    draft_of,
    recipe_to_yaml,
    tokenizer_name,
)
from neva_recipes.plan.huggingface import read_object
from neva_recipes.plan.origins.checkpoints import other_vocabulary
from neva_recipes.plan.tokenizers.tokenizer import LocalTokenizer
from neva_recipes.run_directory.layout import RECIPE_FILE
from neva_recipes.run_directory.names import DESCRIPTIONS
from neva_recipes.storage.exports import exported_training, require_new_directory, write_digests
from neva_recipes.storage.tensors import OPTIMIZER
from neva_recipes.storage.whole import written_whole
from neva_recipes.tokenizers import find_tokenizer

__all__ = ["extend_checkpoint"]


def extend_checkpoint(
    source: Path,
    target: Path,
    tokenizer: str,
    *,
    init: RowInit = "pieces",
    least_rows: int = 1,
    divisible_by: int = 1,
) -> Extension:
    """Give the language model of a checkpoint a row for every token of another tokenizer.

    Rows that have a token keep their bits. The optimizer does not come along.

    Args:
        source: A run or a checkpoint.
        target: The directory to write; must not exist yet. It gets its name only when it is complete.
        tokenizer: The other tokenizer: a directory, a hub name, or a SentencePiece file.
        init: How the rows of new tokens are made.
        least_rows: The number of rows if the tokenizer needs fewer.
        divisible_by: The number of rows becomes a multiple of it. They are padded for the layout beside that.

    Raises:
        CheckpointError: The checkpoint is damaged, or the target exists or cannot be written.
        DataError: A tokenizer cannot be read, moves an id of the old one, or has no new token.
    """
    require_new_directory(target)
    sizes = {"least_rows": least_rows, "divisible_by": divisible_by}
    return with_newest(source, lambda found: _extend(found, target, tokenizer, init, sizes))


def _extend(source: Path, target: Path, tokenizer: str, init: RowInit, sizes: Mapping[str, int]) -> Extension:
    information, saved = read_information(source), saved_recipe(source)
    place, old = _old_tokenizer(source, information, saved)
    everything = all_stored(source, saved)
    stored = {prefix: state for prefix, state in everything.items() if not prefix.startswith(OPTIMIZER)}
    with written_whole(target, "directory") as unfinished:
        kept = unfinished / DESCRIPTIONS
        _write_kept(source / DESCRIPTIONS, place, tokenizer, kept)
        new = read_here(kept)
        new.name = tokenizer  # for messages
        growth = growth_of(source, saved.model.language.vocab_size, old, new, kept, **sizes)
        _set_rows(kept / "config.json", growth.rows)
        if (training := exported_training(source / DESCRIPTIONS)) is not None:
            write_digests(kept, None, training)
        recipe = moved(of_one_replica(saved, saved.parallel), source, target)
        recipe = _with_rows(recipe, growth.rows, target.absolute() / DESCRIPTIONS)
        matrices = sorted(vocabulary_names(recipe.model.language))
        parts = [_written(prefix, state, growth, matrices, init) for prefix, state in stored.items()]
        write_stored(parts, recipe, unfinished, {})
        write_without_values(unfinished)
        (unfinished / RECIPE_FILE).write_text(recipe_to_yaml(draft_of(recipe)), encoding="utf-8")
        # What was measured was measured with other logits.
        record = dataclasses.replace(recorded(information, recipe), metrics={}, vocabulary_digest=new.vocabulary_digest)
        record.write(unfinished)
    padded = recipe.model.language.padded_vocab_size(recipe.parallel.tensor_model_parallel_size)
    left_out = ("the optimizer",) if len(stored) < len(everything) else ()
    return Extension(target, growth.tokens, growth.before, growth.rows, tuple(matrices), left_out, padded)


def _old_tokenizer(checkpoint: Path, information: CheckpointInformation, saved: Recipe) -> tuple[Path, LocalTokenizer]:
    """Return the tokenizer of the rows of a checkpoint, and where it is.

    Raises:
        CheckpointError: It has changed since, or the rows behind its tokens belong to tokens of images.
        DataError: It is not there, or cannot be read without transformers.
    """
    try:
        path = find_tokenizer(tokenizer_name(saved))
    except DataError as error:
        raise DataError(f"{error}; data.tokenizer of {checkpoint} names it: put it back there") from None
    old = read_here(path, use_im_start_end=saved.model.use_im_start_end)
    if old.adds_image_tokens:
        raise CheckpointError(
            f"{checkpoint}: the tokens around its images (model.use_im_start_end) have the rows behind those of its "
            "tokenizer, which new tokens would take: extend the language model before it sees"
        )
    problem = other_vocabulary(information.vocabulary_digest, old.vocabulary_digest, saved, saved)
    if problem is not None:
        raise CheckpointError(f"{checkpoint}: {problem.line()}")
    return path, old


def _write_kept(before: Path, old: Path, tokenizer: str, folder: Path) -> None:
    """Write the tokenizer, and what a converted checkpoint keeps.

    Args:
        before: What the checkpoint before has kept; need not exist.
        old: The tokenizer before.
        tokenizer: The other tokenizer.
        folder: The folder to write.
    """
    folder.mkdir()
    if before.is_dir():
        copy_kept(before, folder)
        remove_tokenizer(folder)
    copy_tokenizer(find_tokenizer(tokenizer), tokenizer, old, folder)


def _set_rows(path: Path, rows: int) -> None:
    """Set the rows in a config.json that a converted checkpoint keeps, if it has one."""
    if not path.is_file():
        return
    config: PlainTable = read_object(path, "a model's configuration")
    for told in (config, config.get("text_config")):
        if isinstance(told, dict) and "vocab_size" in told:
            told["vocab_size"] = rows
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _with_rows(recipe: Recipe, rows: int, tokenizer: Path) -> Recipe:
    model = dataclasses.replace(recipe.model, language=dataclasses.replace(recipe.model.language, vocab_size=rows))
    return dataclasses.replace(recipe, model=model, data=dataclasses.replace(recipe.data, tokenizer=str(tokenizer)))


def _written(prefix: str, state: StoredWeights, growth: Growth, matrices: Collection[str], init: RowInit) -> Written:
    """Return how the weights of a checkpoint, or their averages, are written with new rows."""
    changed, more = {}, {}
    for name in matrices:
        if name not in state.names:
            continue
        values = state.read(name)

        def read(begin: int, end: int, values: torch.Tensor = values) -> torch.Tensor:
            return values[begin:end]

        rows = growth.new_rows(read, init)
        changed[name] = {number: row for number, row in rows.items() if number < growth.before}
        behind = [rows[number] for number in range(growth.before, growth.rows)]
        more[name] = torch.stack(behind) if behind else values.new_zeros(0, values.shape[1])
    return Written(_Changed(state, changed), state.names, prefix, more)


class _Changed:
    """Weights with other values in some of their rows: those that had no token before."""

    def __init__(self, weights: StoredWeights, rows: Mapping[str, Mapping[int, torch.Tensor]]) -> None:
        self._weights, self._rows = weights, rows

    def dtype(self, name: str) -> torch.dtype:
        return self._weights.dtype(name)

    def read(self, name: str) -> torch.Tensor:
        values = self._weights.read(name)
        for number, row in self._rows.get(name, {}).items():
            values[number] = row
        return values
