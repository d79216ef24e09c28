"""The adapters that those of a recipe start from: that they are there, and are of the same kind."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from neva_recipes.config import CheckpointError, LoraConfig, Recipe, RecipeError, expand_path, format_value, path_is
from neva_recipes.plan.checks import Found, found
from neva_recipes.plan.data.near_files import suggest_files
from neva_recipes.plan.findings import Remedy, error
from neva_recipes.plan.origins.checkpoints import find_checkpoint, read_saved_recipe
from neva_recipes.storage.peft import PEFT_CONFIG, PeftSettings, is_peft

__all__ = ["check_adapters"]

_EXPECTED = "expected a run with adapters or a directory of PEFT"


def check_adapters(recipe: Recipe, coming: Mapping[str, Recipe]) -> Iterator[Found]:
    """Yield what is wrong with the adapters that those of a recipe start from.

    Args:
        recipe: The recipe.
        coming: Recipes of runs that do not exist yet, by the path that each will have.
    """
    for part in ("language", "vision"):
        config = recipe.model.language if part == "language" else recipe.model.vision
        if config is not None and config.lora is not None and config.lora.from_pretrained is not None:
            yield from _check(recipe, part, config.lora, config.lora.from_pretrained, coming)


def _check(recipe: Recipe, part: str, lora: LoraConfig, source: str, coming: Mapping[str, Recipe]) -> Iterator[Found]:
    field, path = f"model.{part}.lora.from_pretrained", expand_path(source)
    if source not in coming and not path_is(path):
        message = f"no such directory, {_EXPECTED}{suggest_files(source)}"
        yield found(error("file-missing", message, recipe, field))
        return
    if source not in coming and not path_is(path, Path.is_dir):
        yield found(error("file-kind", f"is a file, {_EXPECTED}", recipe, field))
        return
    try:
        there = _of_peft(path) if is_peft(path) else _of_run(path, part, coming.get(source))
    except (CheckpointError, RecipeError) as problem:
        yield found(error("checkpoint-unusable", str(problem), recipe, field))
        return
    differing = {name: value for name, value in there.items() if value != _own(lora, name)}
    if differing:
        remedy: Remedy = {f"model.{part}.lora.{name}": value for name, value in differing.items()}
        told = ", ".join(f"{name}={format_value(value)}" for name, value in differing.items())
        message = f"the adapters there have {told}"
        yield found(error("shape-mismatch", message, recipe, field, *remedy), [remedy])


def _own(lora: LoraConfig, name: str) -> object:
    return lora.used_alpha if name == "alpha" else getattr(lora, name)


def _of_run(path: Path, part: str, saved: Recipe | None) -> dict[str, Any]:
    where = path
    if saved is None:
        where = find_checkpoint(path)
        saved = read_saved_recipe(where)
    config = saved.model.language if part == "language" else saved.model.vision
    lora = config.lora if config is not None else None
    if lora is None:
        raise CheckpointError(f"{where}: its model.{part} has no adapters, {_EXPECTED}")
    return {name: _own(lora, name) for name in ("kind", "rank", "alpha", "target_modules", "layers")}


def _of_peft(path: Path) -> dict[str, Any]:
    """Return the settings of a directory of PEFT that hold for all of its adapters."""
    settings = PeftSettings(path / PEFT_CONFIG)
    if settings.has_patterns:
        return {"kind": settings.kind}  # the worker compares each
    return {"kind": settings.kind, "rank": settings.rank(), "alpha": settings.alpha()}
