"""The files a recipe names: whether they are there, can be read, and fit the recipe."""

import difflib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from neva_recipes.config import (
    DataError,
    LlavaDataConfig,
    Recipe,
    RecipeError,
    expand_path,
    path_is,
    tokenizer_name,
)
from neva_recipes.plan._data_files import check_data_file
from neva_recipes.plan._sources import check_sources
from neva_recipes.plan.findings import Finding, error, field_value
from neva_recipes.plan.tokenizer import LocalTokenizer, read_tokenizer
from neva_recipes.prompts.templates import TEMPLATES, get_template

__all__ = ["check_files"]

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def check_files(recipe: Recipe) -> list[Finding]:
    """Return what is wrong with the files a recipe names, as far as can be told from here in an instant.

    What can only be a name on the Hugging Face hub is left to the worker: nothing is said of it. A name whose first
    half is a folder here is taken for a path.
    """
    return [*_data_files(recipe), *_names(recipe), *check_sources(recipe), *_tokenizer(recipe)]


def _data_files(recipe: Recipe) -> Iterator[Finding]:
    if recipe.data.data_path is None:
        yield error(
            "file-not-set", "names no file to train on", recipe, "data.data_path", advice="add data.data_path=FILE"
        )
    for field in ("data.data_path", "data.validation_data_path"):
        yield from _missing(recipe, field, Path.is_file, "file", "set it to the one to read")
        yield from check_data_file(recipe, field)
    if isinstance(recipe.data, LlavaDataConfig):
        yield from _missing(recipe, "data.image_folder", Path.is_dir, "folder", "set it to that of the images")


def _names(recipe: Recipe) -> Iterator[Finding]:
    if recipe.data.tokenizer is None and recipe.model.language.from_pretrained is None:
        yield error(
            "file-not-set",
            "names no tokenizer, and there is no model.language.from_pretrained to take it from",
            recipe,
            "data.tokenizer",
            advice="add data.tokenizer=PATH",
        )
    for field in ("data.tokenizer", *(f"model.{part}.from_pretrained" for part in ("language", "vision", "projector"))):
        name = field_value(recipe, field)
        if name is None or path_is(expand_path(name)):
            continue
        if not _HUB_NAME.fullmatch(name):
            yield _not_there(recipe, field, "no such file or folder")
        elif path_is(Path(name).parent, Path.is_dir):
            advice = "what is in a folder that is here is not looked for on the Hugging Face hub"
            yield _not_there(recipe, field, "no such file or folder", advice)


def _tokenizer(recipe: Recipe) -> Iterator[Finding]:
    """Yield an error if the tokenizer has more tokens than the model, or not those of the template."""
    field = "data.tokenizer" if recipe.data.tokenizer is not None else "model.language.from_pretrained"
    if field_value(recipe, field) is None:
        return
    try:
        path = expand_path(tokenizer_name(recipe))
        tokenizer = read_tokenizer(path, use_im_start_end=recipe.model.use_im_start_end) if path_is(path) else None
    except (DataError, RecipeError) as problem:
        message = str(problem).removeprefix(f"{field_value(recipe, field)}: ")
        yield error("tokenizer-unusable", message, recipe, field)
        return
    if tokenizer is None:
        return
    if tokenizer.vocab_size > recipe.model.language.vocab_size:
        counted = ", those of use_im_start_end counted" if tokenizer.adds_image_tokens else ""
        yield error(
            "vocabulary-size",
            f"the tokenizer has {tokenizer.vocab_size} tokens{counted}, more than the model",
            recipe,
            field,
            "model.language.vocab_size",
            remedies=[{"model.language.vocab_size": tokenizer.vocab_size}],
            advice="use the model's own tokenizer",
        )
    if isinstance(recipe.data, LlavaDataConfig):
        yield from _template(recipe, recipe.data, field, tokenizer)


def _template(recipe: Recipe, data: LlavaDataConfig, field: str, tokenizer: LocalTokenizer) -> Iterator[Finding]:
    lacking = [token for token in get_template(data.conv_template).special_tokens if token not in tokenizer.specials]
    if lacking:
        fitting = [
            name
            for name, template in TEMPLATES.items()
            # plain is for captions alone
            if name != "plain" and all(token in tokenizer.specials for token in template.special_tokens)
        ]
        yield error(
            "template-tokens",
            f"the tokenizer has no special token {', '.join(lacking)}, which the template needs",
            recipe,
            field,
            "data.conv_template",
            remedies=[{"data.conv_template": name} for name in fitting[:3]],
            advice="use another tokenizer",
        )


def _missing(recipe: Recipe, field: str, kind: Callable[[Path], bool], expected: str, advice: str) -> Iterator[Finding]:
    name = field_value(recipe, field)
    if name is None or path_is(path := expand_path(name), kind):
        return
    if path_is(path):
        kinds = {"folder": Path.is_dir, "file": Path.is_file}
        found = next((found for found, is_kind in kinds.items() if path_is(path, is_kind)), "pipe or device")
        yield error("file-missing", f"is a {found}, expected a {expected}", recipe, field, advice=advice)
    else:
        yield _not_there(recipe, field, f"no such {expected}", advice)


def _not_there(recipe: Recipe, field: str, message: str, advice: str = "") -> Finding:
    """Return the finding about a name that stands for nothing; names like it that do are better than any advice."""
    near = _nearest(field_value(recipe, field))
    remedies = [{field: name} for name in near]
    return error("file-missing", message, recipe, field, remedies=remedies, advice="" if near else advice)


def _nearest(name: str) -> list[str]:
    """Return the files whose names are like a missing one's."""
    folder = expand_path(name).parent
    try:
        names = [entry.name for entry in folder.iterdir() if entry != expand_path(name)]
    except (OSError, ValueError):
        return []
    near = difflib.get_close_matches(Path(name).name, names, n=2, cutoff=0.7)
    return [str(Path(name).parent / entry) for entry in near]
