"""Writes a checkpoint of a model that no run has trained."""

import dataclasses
from pathlib import Path

from neva_model.checkpoints.converting.kept import keep
from neva_model.checkpoints.digest import weights_digest
from neva_model.checkpoints.information import CheckpointInformation
from neva_model.checkpoints.weights import Weights, Written, weight_shapes, write_checkpoint, write_without_values
from neva_model.checkpoints.weights.names import PROJECTOR
from neva_model.progress import ByteProgress
from neva_recipes.config import DataError, Recipe, draft_of, recipe_to_yaml
from neva_recipes.plan.huggingface import Directory, read_image_processor
from neva_recipes.plan.tokenizers.tokenizer import read_tokenizer
from neva_recipes.run_directory.layout import RECIPE_FILE
from neva_recipes.run_directory.names import DESCRIPTIONS
from neva_recipes.terminal import tell

__all__ = ["write_converted"]

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")
"""Files that say that there is a tokenizer."""


def write_converted(weights: Weights, recipe: Recipe, directory: Directory, folder: Path, target: Path) -> None:
    """Write a checkpoint without an optimizer, of step 0: parts of recipes can start from it, and it can be used.

    Args:
        weights: The weights of the directory.
        recipe: The recipe made from it.
        directory: The directory.
        folder: The folder to write into.
        target: The path that the folder gets in the end, which its recipe names.

    Raises:
        OSError: A file cannot be written.
        CheckpointError: A weight cannot be read.
    """
    keep(directory, folder / DESCRIPTIONS)
    saved, digest = _recipe_there(recipe, folder / DESCRIPTIONS, target.absolute() / DESCRIPTIONS)
    shapes = weight_shapes(recipe.model)
    total = sum(weight_bytes(weights, name, shape) for name, shape in shapes.items())
    write_checkpoint([Written(weights, shapes.keys())], saved, folder, ByteProgress(total).add)
    write_without_values(folder)
    (folder / RECIPE_FILE).write_text(recipe_to_yaml(draft_of(saved)), encoding="utf-8")
    CheckpointInformation(
        step=0,
        consumed_samples=0,
        metrics={},
        projector_digest=_projector_digest(weights, recipe),
        world_size=1,
        tensor_model_parallel_size=1,
        pipeline_model_parallel_size=1,
        has_average=False,
        vocabulary_digest=digest,
    ).write(folder)


def weight_bytes(weights: Weights, name: str, shape: tuple[int, ...]) -> int:
    """Return the bytes of a weight."""
    count = weights.dtype(name).itemsize
    for size in shape:
        count *= size
    return count


def _recipe_there(recipe: Recipe, folder: Path, there: Path) -> tuple[Recipe, str | None]:
    """Return the recipe as the checkpoint has it, and the digest of its vocabulary.

    No part was trained, and the tokenizer and the settings of images are those that the checkpoint keeps.

    Args:
        recipe: The recipe made from the directory.
        folder: The folder with what is kept.
        there: The path of this folder in the end.
    """
    tokenizer, digest = _tokenizer(recipe, folder, there)
    model = dataclasses.replace(recipe.model, language=dataclasses.replace(recipe.model.language, freeze=True))
    if model.vision is not None and model.projector is not None:
        source = str(there) if read_image_processor(folder) is not None else model.vision.from_pretrained
        model = dataclasses.replace(
            model,
            vision=dataclasses.replace(model.vision, freeze=True, from_pretrained=source),
            projector=dataclasses.replace(model.projector, freeze=True),
        )
    return dataclasses.replace(recipe, model=model, data=dataclasses.replace(recipe.data, tokenizer=tokenizer)), digest


def _tokenizer(recipe: Recipe, folder: Path, there: Path) -> tuple[str | None, str | None]:
    """Return where the tokenizer will be, and the digest of its vocabulary; neither without one that can be read."""
    marks = recipe.model.use_im_start_end
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        tell("note", f"{recipe.model.language.from_pretrained} has no tokenizer: give one with data.tokenizer")
        return None, None
    try:
        return str(there), _vocabulary_digest(folder, marks=marks)
    except DataError as error:
        model = folder / "tokenizer.model"
        if not model.is_file():
            tell("warning", f"{error}; give a tokenizer with data.tokenizer")
            return None, None
    # A tokenizer that is code of its own, which is never run, may have a file of SentencePiece all the same.
    return str(there / model.name), _vocabulary_digest(model, marks=marks)


def _vocabulary_digest(path: Path, *, marks: bool) -> str:
    if (known := read_tokenizer(path, use_im_start_end=marks)) is not None:
        return known.vocabulary_digest
    # Only transformers can read it.
    from neva_model.tokenizers import load_tokenizer

    return load_tokenizer(str(path), vocab_size=None, use_im_start_end=marks).vocabulary_digest()


def _projector_digest(weights: Weights, recipe: Recipe) -> str | None:
    names = [name for name in weight_shapes(recipe.model) if name.startswith(PROJECTOR)]
    return weights_digest({name.removeprefix(PROJECTOR): weights.read(name) for name in names}) if names else None
