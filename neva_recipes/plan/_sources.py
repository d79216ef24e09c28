"""What the parts of a model start from: Hugging Face directories, runs and checkpoints that lie here."""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from neva_recipes.config import CheckpointError, Recipe, RecipeError, VisionConfig, expand_path, path_is
from neva_recipes.plan._huggingface import Configuration, compare_part, read_configuration, vocabulary_sizes
from neva_recipes.plan.checkpoints import PARTS, find_checkpoint, model_differences, read_saved_recipe
from neva_recipes.plan.findings import Finding, error

__all__ = ["check_sources"]

_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "mm_projector.bin")


def check_sources(recipe: Recipe) -> Iterator[Finding]:
    """Yield what is wrong with the directories here that parts of the model start from."""
    saved_recipe = cache(lambda path: read_saved_recipe(find_checkpoint(path)))
    for part in PARTS:
        config = getattr(recipe.model, part)
        field = f"model.{part}.from_pretrained"
        if config is None or config.from_pretrained is None:
            continue
        path = expand_path(config.from_pretrained)
        if not path_is(path):
            continue
        try:
            if not path.is_dir():
                yield error("file-missing", "is a file, expected a folder", recipe, field)
            elif any((path / name).is_file() for name in ("config.json", *_INDEXES, *_WEIGHTS)):
                yield from _huggingface(recipe, part, field, path)
            else:
                yield from _ours(recipe, part, field, path, saved_recipe)
        except (CheckpointError, RecipeError) as problem:
            yield error("checkpoint-unusable", str(problem), recipe, field)


def _ours(
    recipe: Recipe, part: str, field: str, path: Path, saved_recipe: Callable[[Path], Recipe]
) -> Iterator[Finding]:
    saved = saved_recipe(path)
    differences = list(model_differences(saved, recipe, part))
    if differences and differences[0][0] == f"model.{part}":
        message = f"has no {part}: it was trained by the recipe {saved.name}"
        yield error("shape-mismatch", message, recipe, field)
    elif differences:
        there = {name: value for name, value, _ in differences}
        message = "was trained with " + ", ".join(f"{name.rpartition('.')[2]}={value}" for name, value in there.items())
        yield error("shape-mismatch", message, recipe, field, *there, remedies=[there])


def _huggingface(recipe: Recipe, part: str, field: str, path: Path) -> Iterator[Finding]:
    if problem := _weights_problem(path):
        yield error("checkpoint-unusable", problem, recipe, field)
    # The original LLaVA's stage 1 may leave nothing but mm_projector.bin.
    if part == "projector" and not (path / "config.json").is_file():
        return
    configuration = read_configuration(path)
    mismatches = list(compare_part(configuration, recipe.model, part))
    if mismatches:
        settings = {mismatch.field: mismatch.value for mismatch in mismatches if mismatch.field}
        message = "; ".join(mismatch.message for mismatch in mismatches)
        message = f"config.json there: {message}" if settings else message
        remedies = [settings] if len(settings) == len(mismatches) else []
        yield error("shape-mismatch", message, recipe, field, *settings, remedies=remedies)
    elif part == "language":
        yield from _vocabulary(recipe, configuration, field)
    if part == "vision" and recipe.model.vision is not None:
        yield from _image_processor(recipe, recipe.model.vision, field, path)


def _vocabulary(recipe: Recipe, configuration: Configuration, field: str) -> Iterator[Finding]:
    marks, sizes = recipe.model.use_im_start_end, vocabulary_sizes(configuration)
    fitting = {size + new for size in sizes for new in ((0, 2) if marks else (0,))}
    if recipe.model.language.vocab_size not in fitting:
        yield error(
            "vocabulary-size",
            f"the language model there has {sizes[-1]} tokens{', to which use_im_start_end adds 2' if marks else ''}",
            recipe,
            field,
            "model.language.vocab_size",
            remedies=[{"model.language.vocab_size": sizes[-1] + 2 * marks}],
        )


def _weights_problem(path: Path) -> str | None:
    """Return what is wrong with the weight files of a directory, as far as their names tell."""
    for index in _INDEXES:
        if (path / index).is_file():
            try:
                files = set(json.loads((path / index).read_text(encoding="utf-8"))["weight_map"].values())
                absent = sorted(file for file in files if not (path / file).is_file())
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
                return f"{index} there cannot be read: {problem!r}"
            return f"{absent[0]} is missing there, but {index} names it" if absent else None
    if any((path / name).is_file() for name in _WEIGHTS):
        return None
    return f"holds no weights: expected {_WEIGHTS[0]}, {_WEIGHTS[1]}, or shards with an index"


def _image_processor(recipe: Recipe, vision: VisionConfig, field: str, path: Path) -> Iterator[Finding]:
    """Yield an error if the directory's image processor makes images of another size than the tower takes."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        try:
            fields = json.loads((path / name).read_text(encoding="utf-8"))
            # A processor of several kinds of input keeps that of images in a group of its own.
            fields = fields.get("image_processor", fields)
            size = fields.get("crop_size" if vision.vision_model_type == "clip" else "size")
        except FileNotFoundError:
            continue
        except (OSError, ValueError, AttributeError) as problem:
            yield error("checkpoint-unusable", f"{name} there cannot be read: {problem}", recipe, field)
            return
        side = _side(size)
        if side not in (None, vision.image_size) and fields.get("do_center_crop") is not False:
            message = f"{name} there makes images of {side} pixels"
            yield error("shape-mismatch", message, recipe, field, "model.vision.image_size")
        return


def _side(size: Any) -> int | None:
    side = size.get("height") if isinstance(size, dict) else size
    return side if isinstance(side, int) else None
