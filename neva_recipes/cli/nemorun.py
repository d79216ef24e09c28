"""The recipes in NeMo-Run's own command: `nemorun llava finetune [key=value ...]`.

That command loads this module through the entry points `nemo_run.cli`. Our own parser reads the words after the
recipe's name, so that fields are typed and checked as in `nemo-run`, unknown flags are refused, and exit codes are
those of the run.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from nemo_run import Experiment
from nemo_run.cli.api import RunContext, entrypoint
from nemo_run.cli.cli_parser import CLIException
from typer import Abort

import executors
from executors.nemo_run.executor import to_nemo_run
from neva_recipes.cli.arguments import UsageError, apply_overrides, split_overrides
from neva_recipes.cli.dry_run import show
from neva_recipes.cli.opening import make_recipe
from neva_recipes.cli.report.finish import finish
from neva_recipes.config import (
    Draft,
    Recipe,
    UserError,
    expand_path,
    load_recipe,
    make_folder_of,
    recipe_to_yaml,
    suggest,
    with_absolute_inputs,
)
from neva_recipes.inspection import inspect_recipe
from neva_recipes.interruption import ends_told_by_command
from neva_recipes.registry import RecipeEntry, list_recipes
from neva_recipes.run_directory.exit_codes import EXIT_MISTAKE
from neva_recipes.secrets import mask, secret_values
from neva_recipes.terminal import tell

_TASK = "recipe"
_FLAGS = ("--detach", "--direct", "--dryrun", "--name", "--tail-logs", "--to-yaml", "--verbose", "--yaml", "--yes")


class _RecipeContext(RunContext):  # type: ignore[misc]
    """Runs one recipe as `nemorun` asks."""

    def cli_execute(self, fn: object, args: list[str], entrypoint_type: str = "task") -> None:
        """Run what the words of a command ask for; ends the program with the exit code."""
        try:
            _refuse_flags(args, self)
            super().cli_execute(fn, args, entrypoint_type)
        except UserError as error:
            tell("error", mask(str(error), secret_values(os.environ)))
            # NeMo-Run's command would take any other exception for its own, and end with 1.
            raise SystemExit(EXIT_MISTAKE) from None

    def parse_args(self, args: list[str], lazy: bool = False) -> list[str]:
        """Set what the words after `run.` say, or raise `UsageError`."""
        known = [field.name for field in dataclasses.fields(self)]
        for word in args:
            name = word.partition("=")[0].partition(".")[0].partition("[")[0]
            if name not in known:
                raise UsageError(f"run.{word}: no such field of nemorun{suggest(name, known)}")
        try:
            return list(super().parse_args(args, lazy))
        except (CLIException, ValueError) as error:
            names = ", ".join(f"run.{word.partition('=')[0]}" for word in args)
            raise UsageError(f"{names}: {' '.join(str(error).split())}") from error

    def _execute_task(self, fn: Any, task_args: list[str]) -> NoReturn:
        raise SystemExit(self._execute(fn.recipe_entry, task_args))

    def _execute(self, entry: RecipeEntry, words: Sequence[str]) -> int:
        recipe = executors.settle(self._recipe(entry, split_overrides(words)))
        name = None if self.name == _command_name(entry) else self.name
        if self.to_yaml:
            file = expand_path(self.to_yaml)
            try:
                make_folder_of(file)
                file.write_text(recipe_to_yaml(with_absolute_inputs(recipe)), encoding="utf-8")
            except OSError as error:
                raise UsageError(f"--to-yaml {self.to_yaml}: cannot be written: {error.strerror}") from None
            return 0
        if self.dryrun:
            return show(inspect_recipe(recipe, executors.LocalExecutor(), name=name), "text")
        executors.plan_job(recipe, name=name)  # refuses a recipe that cannot run before asking for confirmation
        try:
            if not self._should_continue(self.skip_confirmation):
                return 1
        except Abort:
            print()  # the question is on this line
            raise UsageError("nothing was answered, so nothing was started; --yes starts without a question") from None
        if self.executor is None:
            if self.plugins:
                raise UsageError("run.plugins: changes what run.executor gets, so set run.executor=... too")
            with ends_told_by_command():
                return finish(executors.run(recipe, name=name, detach=self.detach), self.detach)
        return self._run_experiment(recipe, name or entry.name)

    def _recipe(self, entry: RecipeEntry, overrides: dict[str, str]) -> Draft[Recipe]:
        if not self.yaml:
            return make_recipe(entry, overrides)
        recipe = load_recipe(self.yaml)
        apply_overrides(recipe, overrides)
        return recipe

    def _run_experiment(self, recipe: Draft[Recipe], name: str) -> int:
        """Run the recipe on NeMo-Run's executor, and return 1 unless NeMo-Run says that it succeeded."""
        with Experiment(name, executor=self.executor) as experiment:
            experiment.add(to_nemo_run(recipe), name=_TASK, plugins=self.plugins or None, tail_logs=self.tail_logs)
            experiment.run(detach=self.detach)
        if getattr(experiment, "detach", False):
            return 0
        return 0 if experiment.status(return_dict=True)[_TASK]["status"].name == "SUCCEEDED" else 1


def _refuse_flags(words: Sequence[str], context: RunContext) -> None:
    """Raise `UsageError` for unknown flags, which NeMo-Run's command accepts, and for words that do nothing here."""
    for word in words:
        if word.partition("=")[0].partition(".")[0] in ("executor", "plugins"):
            raise UsageError(f"{word}: not of the recipe; NeMo-Run's own is set by run.{word}")
        if word.startswith("run") and not word.startswith(("run.", "run[")):
            raise UsageError(f"{word}: not of the recipe; what is set of NeMo-Run is called run.NAME=VALUE")
        if word.startswith("-"):
            raise UsageError(f"{word}: no such flag of nemorun{suggest(word, _FLAGS) or ': --help shows them'}")
    for name in ("factory", "load", "repl", "to_toml", "to_json"):
        if getattr(context, name):
            raise UsageError(
                f"--{name.replace('_', '-')}: not for these recipes; --yaml and --to-yaml take a saved one"
            )


def _command_name(entry: RecipeEntry) -> str:
    return entry.name.rpartition(".")[2]


def _flowing(text: str) -> str:
    """Return a text with one line for each paragraph, since NeMo-Run's command keeps line breaks."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _register(entry: RecipeEntry) -> None:
    def recipe(**overrides: str) -> None:
        """Stand for the recipe; `_RecipeContext` runs it."""

    function: Callable[..., None] = recipe
    function.__name__ = function.__qualname__ = _command_name(entry)
    function.__doc__ = f"{_flowing(entry.description)}\n\nFields: nemo-run {entry.name} --help"
    function.recipe_entry = entry  # type: ignore[attr-defined]
    entrypoint(function, namespace=entry.name.rpartition(".")[0], run_ctx_cls=_RecipeContext)


for _entry in list_recipes():
    try:
        _register(_entry)
    except UserError as _error:  # a broken package must not affect other recipes
        tell("warning", f"{_entry.name} cannot be used: {_error}")
