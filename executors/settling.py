"""Resolves what a recipe takes from other runs and files: paths of runs, the tokenizer, the vocabulary size."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import fiddle as fdl

from executors.pipelines.single import require_single
from executors.runs.paths import find_run_directory, is_pattern, near_runs
from neva_recipes.config import (
    RANDOM,
    Draft,
    Recipe,
    RecipeError,
    RunError,
    expand_path,
    is_placeholder,
    owned,
    path_is,
    recipe_of_run,
    replace_value,
    tokenizer_name,
)
from neva_recipes.pipeline import StageOutput
from neva_recipes.plan.tokenizers.vocabulary import vocabulary_size

__all__ = ["Settler", "settle", "with_named_runs"]

T = TypeVar("T")

_MODEL_FIELDS = ("from_pretrained", "model")
"""Names of the fields that take a trained model."""


def settle(recipe: Draft[T], runs_dir: str | Path = "runs") -> Draft[T]:
    """Return a copy of a recipe in which every value that depends on other runs and files is resolved.

    - The name of a run in a `from_pretrained` becomes the path of its directory. An existing path takes precedence.
    - An unset `data.tokenizer` becomes the tokenizer of the run that the language model starts from.
    - A placeholder in `model.language.vocab_size` becomes the value of that run, or else of the tokenizer.

    All other values stay as they are.

    Args:
        recipe: The recipe, or the tool of a stage.
        runs_dir: Folder of the runs.

    Raises:
        RecipeError: A field names no run, file or folder, but is similar to names of runs.
        RunError: The folder of the runs cannot be read.
    """
    return Settler(runs_dir).settle(recipe)


def with_named_runs(recipe: Draft[T], runs_dir: str | Path = "runs") -> Draft[T]:
    """Return a copy of a recipe with paths in place of names of runs, otherwise unchanged; raises as `settle` does."""
    return Settler(runs_dir).with_named_runs(recipe)


class Settler:
    """Settles recipes that are to be started together; looks up a run or file that several of them name only once.

    Args:
        runs_dir: Folder of the runs.
    """

    def __init__(self, runs_dir: str | Path = "runs") -> None:
        self._runs_dir = runs_dir
        self._path_of = cache(self._find)
        self._vocabulary_size = cache(vocabulary_size)
        self._recipe_of_run = cache(recipe_of_run)

    def settle(self, recipe: Draft[T], made: Mapping[str, Recipe] | None = None) -> Draft[T]:
        """Return what `settle` returns.

        Args:
            recipe: The recipe, or the tool of a stage.
            made: Recipes of the stages whose output it may use, by name of the stage.
        """
        settled = self.with_named_runs(recipe)
        if not isinstance(settled, fdl.Buildable):
            return settled
        model, data = (settled.__arguments__.get(name) for name in ("model", "data"))
        language = model.__arguments__.get("language") if isinstance(model, fdl.Buildable) else None
        if isinstance(data, fdl.Buildable) and isinstance(language, fdl.Buildable):
            self._inherit(model, language, data, made or {})
        return settled

    def with_named_runs(self, recipe: Draft[T]) -> Draft[T]:
        """Return what `with_named_runs` returns."""
        settled = owned(recipe)
        self._name_runs(settled, "")
        return settled

    def _name_runs(self, node: object, prefix: str) -> None:
        # Building the recipe reports any other mistake in it.
        for name, value in list(node.__arguments__.items()) if isinstance(node, fdl.Buildable) else ():
            if (name, value) == ("from_pretrained", RANDOM):
                continue
            if name not in _MODEL_FIELDS or not isinstance(value, str) or not value:
                self._name_runs(value, f"{prefix}{name}.")
            elif (path := self._path_of(f"{prefix}{name}", value)) is not None:
                replace_value(node, name, path, value)

    def _find(self, field: str, name: str) -> str | None:
        """Return the path of the run that a value names; `None` if it names no run."""
        path = expand_path(name)
        if path_is(path):
            _require_single(field, name, path)
            return None
        try:
            run = find_run_directory(name, self._runs_dir)
        except RunError as error:
            owner, slash, _ = name.partition("/")
            if slash and self._is_run(owner):
                raise RecipeError(f"{field}={name}: {error}") from None
            near = [] if slash else near_runs(name, self._runs_dir)
        else:
            _require_single(field, name, run)
            return str(run)
        if near:
            hint = f"did you mean {', '.join(near)}?"
            raise RecipeError(f"{field}={name}: no such run in {self._runs_dir}, file or folder ({hint})")
        if is_pattern(name):
            raise RecipeError(f"{field}={name}: matches no run in {self._runs_dir}; nemo-run status lists them")
        return None

    def _is_run(self, name: str) -> bool:
        try:
            find_run_directory(name, self._runs_dir)
        except RunError:
            return False
        return True

    def _inherit(self, model: Any, language: Any, data: Any, made: Mapping[str, Recipe]) -> None:
        source = language.__arguments__.get("from_pretrained")
        source = None if source == RANDOM else source
        try:
            if isinstance(source, StageOutput):
                origin = made.get(source.stage)
            else:
                origin = self._recipe_of_run(source) if isinstance(source, str) else None
            where = "model.language"
            if origin is not None and data.__arguments__.get("tokenizer") is None:
                replace_value(data, "tokenizer", tokenizer_name(origin), where)
        except RecipeError:  # the plan reports it among the other findings
            return
        if not is_placeholder(language, "vocab_size"):
            return
        if origin is not None:
            replace_value(language, "vocab_size", origin.model.language.vocab_size, where)
            return
        tokenizer = data.__arguments__.get("tokenizer")
        named = tokenizer if tokenizer is not None else source
        marks = bool(model.__arguments__.get("use_im_start_end"))
        if isinstance(named, str) and (source is None or isinstance(source, str)):
            size = self._vocabulary_size(named, source, use_im_start_end=marks)
            if size is not None:
                replace_value(language, "vocab_size", size, "data.tokenizer" if tokenizer is not None else where)


def _require_single(field: str, name: str, run: Path) -> None:
    try:
        require_single(run, name)
    except RunError as error:
        raise RecipeError(f"{field}={error}") from None
