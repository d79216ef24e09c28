"""Parts of a model that one word fills from a Hugging Face directory: `model.language=DIR_OR_HUB_NAME`."""

import shlex
from collections.abc import Collection, Mapping
from typing import Any

import fiddle as fdl

from neva_recipes.config import (
    ConfigNode,
    Draft,
    LanguageConfig,
    LlavaDataConfig,
    RecipeError,
    UserError,
    VisionConfig,
    expand_path,
    is_none_word,
    path_is,
    recipe_of_run,
    set_field,
    stands_in_a_file,
)

__all__ = ["branches_of", "fill_branch"]

_CLASSES = {"model.language": LanguageConfig, "model.vision": VisionConfig}


def branches_of(recipe: Draft[ConfigNode], overrides: Mapping[str, str]) -> dict[str, str]:
    """Return those of some overrides that name a directory for a part of the model that a recipe has."""
    model: Any = getattr(recipe, "model", None)
    return {
        path: text
        for path, text in overrides.items()
        if path in _CLASSES
        and text.strip()
        and not is_none_word(text)
        and isinstance(node := getattr(model, path.rpartition(".")[2], None), fdl.Buildable)
        and fdl.get_callable(node) is _CLASSES[path]
    }


def fill_branch(recipe: Draft[ConfigNode], path: str, text: str, others: Collection[str]) -> None:
    """Set the fields of a part that a directory decides, and leave the others, such as `freeze`, as they are.

    With a language model comes the conversation template of its family, if the family has one and the recipe trains on
    conversations, not on captions (`plain`). A template that a file of values names is meant, and stays.

    Args:
        recipe: The recipe to change.
        path: `model.language` or `model.vision`.
        text: The directory, or a name on the hub.
        others: The other fields that are set, which keep what they are set to.

    Raises:
        RecipeError: There is no such directory, or the part in it is not understood.
    """
    # The plan takes a tenth of a second to import.
    from neva_recipes.families import language_family
    from neva_recipes.plan.huggingface import language_fields, tower_fields

    try:
        fields = language_fields(text) if path == "model.language" else tower_fields(text)
    except UserError as error:
        problem = str(error).removeprefix(f"{text}: ")
        of_a_run = f"{path}.from_pretrained={shlex.quote(text)}"
        if _is_run(text):
            problem = f"is a run, expected a Hugging Face directory: set {of_a_run}"
        elif "/" not in text and not path_is(expand_path(text)):
            problem += f"; if it is a run, set {of_a_run}"
        raise RecipeError(f"{path}={text}: {problem}") from None
    part: Any = getattr(recipe.model, path.rpartition(".")[2])  # type: ignore[attr-defined]
    for name, value in fields.items():
        if name != "from_pretrained":
            setattr(part, name, value)
    set_field(recipe, f"{path}.from_pretrained", text)
    data: Any = recipe.data  # type: ignore[attr-defined]
    if path != "model.language" or fdl.get_callable(data) is not LlavaDataConfig or "data.conv_template" in others:
        return
    template = language_family(fdl.build(part)).conv_template
    if template is not None and data.conv_template != "plain" and not stands_in_a_file(data, "conv_template"):
        data.conv_template = template


def _is_run(text: str) -> bool:
    """Return whether a path is that of a run or a checkpoint, and no Hugging Face directory inside of one."""
    if path_is(expand_path(text) / "config.json"):
        return False
    try:
        return recipe_of_run(text) is not None
    except RecipeError:
        return False
