"""Tools in a pipeline, before they run: settings from the run whose model they use, problems and warnings."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import fiddle as fdl

from executors.pipelines.tool_stage import saved_tool
from executors.warnings import PlanWarning
from neva_recipes.config import (
    DataError,
    LlavaDataConfig,
    Recipe,
    RecipeError,
    RunError,
    expand_path,
    field_types,
    format_value,
    is_here_path,
    is_list,
    listed_paths,
    path_is,
    recipe_of_run,
)
from neva_recipes.pipeline import Evaluate, Export, Generate, StageOutput, Tool, TrainTokenizer, Work
from neva_recipes.plan import Finding, Planner
from neva_recipes.plan.data.file_states import files_here
from neva_recipes.plan.data.near_files import suggest_files
from neva_recipes.plan.data.question_files import (
    check_prompts,
    check_questions,
    have_images_beside,
    odd_images,
    question_template,
)
from neva_recipes.plan.huggingface import why_not_exportable
from neva_recipes.plan.tokenizers.kinds import require_vocabulary
from neva_recipes.plan.trained.same_files import NOTHING_NEW, TRAINED_ON
from neva_recipes.plan.trained.sought_samples import DataFile
from neva_recipes.run_directory.stages import TOOL_FILE
from neva_recipes.storage.exports import exported_checkpoint

__all__ = ["CheckedTool", "checked_tool", "used_recipe"]


class CheckedTool(NamedTuple):
    """What is known of a tool before it runs.

    Attributes:
        chosen: Fields that the user has left open, with what the tool takes in their place.
        problems: Errors that prevent it from running anywhere, one line each.
        missing: The files and folders it names that are not here.
        warnings: Its warnings.
    """

    chosen: dict[str, str]
    problems: tuple[str, ...]
    missing: tuple[Finding, ...]
    warnings: tuple[PlanWarning, ...]


def checked_tool(tool: Tool, recipe: Recipe | None, names: Collection[str], planner: Planner) -> CheckedTool:
    """Return what a tool takes for the fields that are left open, and what is wrong with it then.

    Args:
        tool: The tool.
        recipe: The recipe of the run whose model it uses; `None` if unknown.
        names: The fields of the user whose files must exist; so must those of the fields chosen.
        planner: Knows the recipes of runs that do not exist yet.
    """
    chosen = _chosen_fields(tool, recipe)
    whole = dataclasses.replace(tool, **chosen)
    problems = tuple(_problems(whole, recipe))
    missing = tuple(_missing_paths(whole, {*names, *chosen}))
    return CheckedTool(chosen, problems, missing, tuple(_warnings(whole, recipe, planner)))


def used_recipe(work: Work, made: Mapping[str, Recipe]) -> Recipe | None:
    """Return the recipe of the run whose model a tool evaluates or exports; `None` for a recipe or if unknown.

    Args:
        work: The work of a stage.
        made: Recipes of the models of earlier stages, exported ones too, by name of the stage.
    """
    if not issubclass(fdl.get_callable(work), Evaluate | Export):
        return None
    model = getattr(work, "model", None)
    if isinstance(model, StageOutput):
        return made.get(model.stage)
    if not isinstance(model, str):
        return None
    path = expand_path(model)
    try:
        if checkpoint := exported_checkpoint(path):
            return recipe_of_run(str(checkpoint))
        if path.name == Export.output and path_is(path.parent / TOOL_FILE, Path.is_file):
            return used_recipe(saved_tool(path.parent), made)  # a stage whose export is not written yet
        return recipe_of_run(model)
    except (RecipeError, RunError):  # the stage reports the error
        return None


def _chosen_fields(tool: Tool, recipe: Recipe | None) -> dict[str, str]:
    """Return the fields of a tool that the user has left open, with what it takes in their place.

    An evaluation finds images as the command does: beside the questions, or as in training.

    Args:
        tool: The tool.
        recipe: The recipe of the run whose model it uses; `None` if unknown.
    """
    if not isinstance(tool, Evaluate) or recipe is None or not isinstance(recipe.data, LlavaDataConfig):
        return {}
    if recipe.data.image_folder is None or tool.image_folder is not None:
        return {}
    named = listed_paths(tool.data)
    files = files_here(named)
    if len(files) == len(named) and have_images_beside(files):
        return {}
    return {"image_folder": str(expand_path(recipe.data.image_folder).absolute())}


def _missing_paths(tool: Tool, names: Collection[str]) -> Iterator[Finding]:
    """Yield an error for each missing file or folder.

    Args:
        tool: The tool, with the fields chosen for it.
        names: The fields whose files must exist.
    """
    kind: Any = type(tool)
    for name, annotation in field_types(kind).items():
        value = getattr(tool, name)
        is_asked_for = is_here_path(annotation) and value is not None and name in names
        named = (listed_paths(value) if is_list(annotation) else [value]) if is_asked_for else []
        for path in named:
            if not path_is(expand_path(path)):
                message = f"no such file or folder{suggest_files(path)}"
                yield Finding("file-missing", "error", message, {name: path}, about="files")


def _problems(tool: Tool, recipe: Recipe | None) -> Iterator[str]:
    """Yield what keeps a tool from doing its work anywhere, one line each."""
    try:
        if isinstance(tool, TrainTokenizer):
            require_vocabulary(tool.vocab_size, tool.kind)
        elif isinstance(tool, Generate):
            check_prompts(files_here([tool.prompts]))
    except DataError as error:
        yield str(error)
    if isinstance(tool, Evaluate):
        yield from _question_problems(tool, recipe)
    elif isinstance(tool, Export) and recipe is not None and (problem := why_not_exportable(recipe)):
        yield problem


def _question_problems(tool: Evaluate, recipe: Recipe | None) -> Iterator[str]:
    """Yield what keeps a model from being asked the questions that are here, one line each."""
    folder = expand_path(tool.image_folder) if tool.image_folder is not None else None
    named = listed_paths(tool.data)
    for path in map(expand_path, named):
        if path_is(path) and not path_is(path, Path.is_file):
            yield f"data={path}: is a folder, expected a file"
    if folder is not None and path_is(folder) and not path_is(folder, Path.is_dir):
        yield f"image_folder={folder}: is a file, expected a folder"
    yield from check_questions(files_here(named), folder, recipe, tool.conv_template)


def _warnings(tool: Tool, recipe: Recipe | None, planner: Planner) -> Iterator[PlanWarning]:
    """Yield the warnings about a tool: questions that the model was trained on, images that are used in part.

    Args:
        tool: The tool, with the fields chosen for it.
        recipe: The recipe of the run whose model it uses; `None` if unknown.
        planner: Knows the recipes of runs that do not exist yet.
    """
    if isinstance(tool, Evaluate):
        yield from (PlanWarning(("questions-trained-on", "data"), line) for line in _trained_on(tool, recipe, planner))
        folder = expand_path(tool.image_folder) if tool.image_folder is not None else None
        odd = odd_images(files_here(listed_paths(tool.data)), folder, recipe, tool.conv_template)
        yield from (PlanWarning((code, "data"), line) for code, line in odd)


def _trained_on(tool: Evaluate, recipe: Recipe | None, planner: Planner) -> Iterator[str]:
    named = listed_paths(tool.data)
    trained = planner.trained_files(tool.model, named)
    yield from (f"data={path}: {TRAINED_ON}" for path in trained)
    template = question_template(recipe, tool.conv_template)
    folder = expand_path(tool.image_folder) if tool.image_folder is not None else None
    files = files_here(name for name in named if name not in trained)
    questions = [DataFile(path, template, folder or path.parent) for path in files]
    if said := planner.trained_questions(tool.model, questions):
        yield f"data={format_value(tool.data)}: {said}: {NOTHING_NEW}"
