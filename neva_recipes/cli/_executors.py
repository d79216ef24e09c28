"""Where a recipe runs: `--executor NAME`, `executor.FIELD=VALUE`, and `nemo-run executors`."""

import argparse
import inspect
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fiddle as fdl

from neva_recipes.cli._arguments import StrictParser, UsageError, split_overrides, wrap
from neva_recipes.cli._fields import describe_field, field_meanings
from neva_recipes.config import UserError, format_value, iterate_fields, suggest
from neva_recipes.secrets import MASK, is_secret, mask, secret_values

if TYPE_CHECKING:
    from executors import Executor
    from executors.profiles import Profile

__all__ = ["add_executor", "chosen_executor", "executors_command", "refuse_slips", "split_executor_overrides"]

_PREFIX = "executor."


def add_executor(parser: StrictParser) -> None:
    """Add --executor, which every command that starts something has."""
    parser.add_argument(
        "--executor", metavar="E", default="local", help="where it runs, of those nemo-run executors shows (local)"
    )


def split_executor_overrides(overrides: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the overrides of the recipe, and those of the executor by the names of its fields.

    Raises:
        UsageError: `executor=NAME` was typed for `--executor NAME`, or a variable holds a secret.
    """
    of_recipe, of_executor = {}, {}
    for path, text in overrides.items():
        if path == "executor":
            raise UsageError(f"executor={text}: the executor is chosen by a flag: --executor {shlex.quote(text)}")
        variable = path.removeprefix(f"{_PREFIX}env.")
        if variable != path and text and is_secret(variable, text):
            raise UsageError(
                f"{path}: a secret on a command line can be seen by everybody on the machine: set {variable} in the "
                f"environment (the docker executor passes it on by executor.pass_env={variable})"
            )
        if path.startswith(_PREFIX):
            of_executor[path.removeprefix(_PREFIX)] = text
        else:
            of_recipe[path] = text
    return of_recipe, of_executor


def refuse_slips(overrides: Mapping[str, str]) -> None:
    """Raise `UsageError` if the name of a field begins with nearly `executor.`: no group of a recipe does."""
    for path in overrides:
        group, dot, field = path.partition(".")
        if dot and suggest(group, ["executor"]):
            raise UsageError(f"{path}: no such field (did you mean {_PREFIX}{field}?)")


def chosen_executor(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> "Executor":
    """Return the executor that `--executor` names, with fields replaced; its remarks are printed.

    Args:
        arguments: Those of a command that has --executor and --recipes.
        overrides: Fields of the executor as text, by name.

    Raises:
        RunError: There is no such executor.
        RecipeError: Its profile or an override is wrong.
    """
    from executors.registry import find_profile, make_executor

    profile = find_profile(arguments.executor, arguments.recipes)
    executor = make_executor(profile, overrides)
    for remark in profile.remarks:
        print(f"warning: {remark}", file=sys.stderr)
    return executor


def executors_command(argv: Sequence[str]) -> int:
    """Print the executors, or the fields of one: `nemo-run executors [NAME [executor.FIELD=VALUE ...]]`."""
    parser = StrictParser(
        "nemo-run executors",
        usage="nemo-run executors [NAME [executor.FIELD=VALUE ...]] [flags]",
        description=(
            "Where recipes can run: the kinds of executors, and profiles, which are executors with\n"
            "their fields filled in. With a name: its fields, what they hold and what they mean."
        ),
    )
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--recipes", metavar="F", type=Path, help="Python file with profiles of your own")
    arguments = parser.parse(argv)
    if not arguments.words:
        text = "\n".join(_overview(arguments.recipes))
    else:
        from executors.registry import executor_config, find_profile

        name, *words = arguments.words
        of_recipe, of_executor = split_executor_overrides(split_overrides(words))
        for path, value in of_recipe.items():
            raise UsageError(f"{path}={value}: expected {_PREFIX}FIELD=VALUE")
        profile = find_profile(name, arguments.recipes)
        text = "\n".join(_description(profile, executor_config(profile, of_executor)))
    print(mask(text, secret_values(os.environ)))
    return 0


def _overview(recipes: Path | None) -> Iterator[str]:
    from executors.profiles import profile_files
    from executors.registry import executor_kinds, find_profile, list_profiles

    kinds, profiles = executor_kinds(), list_profiles(recipes)
    width = max(map(len, [*(kind.name for kind in kinds), *(profile.name for profile in profiles)]))
    yield "kinds:"
    for kind in kinds:
        try:
            meaning = _first_paragraph(kind.load())
        except UserError as error:
            meaning = f"cannot be used: {error}"
        origin = "" if kind.origin == "built in" else f" ({kind.origin})"
        yield _row(kind.name, width, f"{meaning}{origin}")
    if not profiles:
        user, project = profile_files()
        yield wrap(f"no profiles: they are written in {project} or {user}")
        return
    yield "profiles:"
    for profile in profiles:
        try:
            kind_name = fdl.get_callable(find_profile(profile.name, recipes).load()).kind
        except UserError as error:
            yield _row(profile.name, width, f"cannot be used: {error}")
        else:
            yield _row(profile.name, width, f"{kind_name}, from {profile.origin}")


def _row(name: str, width: int, text: str) -> str:
    indent = " " * (width + 4)
    return f"  {name:<{width}}  {wrap(text, indent).lstrip()}".rstrip()


def _first_paragraph(cls: type) -> str:
    return " ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].split())


def _description(profile: "Profile", executor: fdl.Config[Any]) -> Iterator[str]:
    from neva_recipes.inspection import source_of

    cls = fdl.get_callable(executor)
    kind = "" if profile.name == cls.kind else f"{cls.kind}, "
    yield wrap(f"{profile.name} ({kind}{profile.origin}): {_first_paragraph(cls)}")
    meanings = field_meanings(cls)
    for field in iterate_fields(executor):
        source = source_of(executor, field.path)
        origin = "" if source.kind == "default" else f" From {source}."
        meaning = f"{meanings.get(field.path, '')}{origin}"
        yield from describe_field("\n  ".join(_settings(executor, field.path)), meaning, field.annotation)
    yield from (f"warning: {remark}" for remark in profile.remarks)


def _settings(executor: fdl.Config[Any], name: str) -> list[str]:
    """Return what is typed to set a field as it stands; of a table, what is typed for each value in it."""
    if name not in executor.__arguments__:
        return [f"{_PREFIX}{name}=VALUE"]
    value = executor.__arguments__[name]
    if not isinstance(value, dict):
        return [f"{_PREFIX}{name}={shlex.quote(format_value(value))}"]
    items = [
        f"{_PREFIX}{name}.{key}={MASK if is_secret(key, str(item)) else shlex.quote(format_value(item))}"
        for key, item in value.items()
    ]
    return items or [f"{_PREFIX}{name}.NAME=VALUE"]
