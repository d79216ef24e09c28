"""The command that goes on from a first stage, which has trained a projector, to the second."""

import shlex
from pathlib import Path
from typing import Any

from neva_recipes.config import Recipe, expand_path, path_is
from neva_recipes.families.published import recipe_sizes
from neva_recipes.plan.findings import field_value
from neva_recipes.plan.huggingface import could_be_on_hub
from neva_recipes.registry import find_recipe

__all__ = ["second_stage"]

_FOLLOWING = {"llava.pretrain": "llava.finetune", "neva.pretrain": "neva.finetune"}
_VOCABULARY = "model.language.vocab_size"


def second_stage(recipe: Recipe, name: str) -> list[str]:
    """Return the words of the command that trains the second stage beside the same parts; none if there is none.

    They are quoted for a shell.

    Args:
        recipe: The recipe of the first stage.
        name: The reference to its run.
    """
    following = _FOLLOWING.get(recipe.name)
    if following is None or recipe.model.projector is None or recipe.model.vision is None:
        return []
    size = _size_of(recipe, following)
    draft = find_recipe(following, ()).make({} if size is None else {"size": size})
    words = [] if size is None else [f"size={size}"]
    folder = getattr(recipe.data, "image_folder", None)
    if folder is not None or draft.data.data_path is None:  # data of the user's own, and so is that of the second
        words.append("data.data_path=FILE")
    if folder is not None:
        words.append("data.image_folder=DIR")
    for part in ("language", "vision"):
        source, usual = getattr(recipe.model, part).source, getattr(draft.model, part).from_pretrained
        if size is None and source != usual and not _has_sizes(source):
            return []
        if source is None:
            words.append(f"model.{part}.from_pretrained={name}")
        elif source != usual:
            # A whole part takes its sizes from the directory too.
            words.append(f"model.{part}{'' if size is None else '.from_pretrained'}={shlex.quote(source)}")
    draft_projector: Any = draft.model.projector
    if (kind := recipe.model.projector.mm_projector_type) != draft_projector.mm_projector_type:
        words.append(f"model.projector.mm_projector_type={kind}")
    return ["nemo-run", following, *words, f"model.projector.from_pretrained={name}"]


def _has_sizes(source: str | None) -> bool:
    """Return whether the source of a part can fill its fields: a Hugging Face directory, or a name on the hub."""
    if source is None:
        return False
    path = expand_path(source)
    return could_be_on_hub(source) if not path_is(path) else path_is(path / "config.json", Path.is_file)


def _size_of(recipe: Recipe, following: str) -> str | None:
    """Return the size of the second stage that has the sizes of the first; `None` if none has."""
    for size, fields in recipe_sizes(following).items():
        if all(field_value(recipe, path) == value for path, value in fields.items() if path != _VOCABULARY):
            return size
    return None
