"""Where a recipe runs: `--executor NAME`, `executor.FIELD=VALUE`, and `nemo-run executors`."""

import argparse
import inspect
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import fiddle as fdl

from neva_recipes.cli.arguments import (
    DEFAULT_EXECUTOR,
    StrictParser,
    UsageError,
    add_recipes,
    split_overrides,
    wrap,
)
from neva_recipes.cli.fields import describe_field, field_meanings
from neva_recipes.config import DraftNode, UserError, format_value, iterate_fields, suggest
from neva_recipes.secrets import MASK, is_secret, mask, secret_values
from neva_recipes.terminal import print_text, tell

if TYPE_CHECKING:
    from executors import Executor
    from executors.profiles import Profile

__all__ = [
    "EXECUTOR_PREFIX",
    "add_executor",
    "add_gpu",
    "chosen_executor",
    "executors_command",
    "refuse_slips",
    "split_executor_overrides",
    "with_gpu",
]

EXECUTOR_PREFIX = "executor."
"""Prefix of the executor's fields on a command line."""


def add_executor(parser: StrictParser) -> None:
    """Add --executor, which every command that starts something has."""
    parser.add_argument(
        "--executor",
        metavar="E",
        default=DEFAULT_EXECUTOR,
        help=f"where it runs, of those nemo-run executors shows ({DEFAULT_EXECUTOR})",
    )


def split_executor_overrides(overrides: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the overrides of the recipe, and the overrides of the executor without their prefix.

    Raises:
        UsageError: `executor=NAME` was typed for `--executor NAME`, or a variable holds a secret.
    """
    of_recipe, of_executor = {}, {}
    for path, text in overrides.items():
        if path == "executor":
            raise UsageError(f"executor={text}: the executor is chosen by a flag: --executor {shlex.quote(text)}")
        variable = path.removeprefix(f"{EXECUTOR_PREFIX}env.")
        if variable != path and text and is_secret(variable, text):
            raise UsageError(
                f"{path}: a secret on a command line can be seen by everybody on the machine: set {variable} in the "
                f"environment (the docker executor passes it on by executor.pass_env={variable})"
            )
        if path.startswith(EXECUTOR_PREFIX):
            of_executor[path.removeprefix(EXECUTOR_PREFIX)] = text
        else:
            of_recipe[path] = text
    return of_recipe, of_executor


def refuse_slips(overrides: Mapping[str, str]) -> None:
    """Raise `UsageError` if a path begins with a misspelt `executor.`; no group of a recipe has a similar name."""
    for path in overrides:
        group, dot, field = path.partition(".")
        if dot and suggest(group, ["executor"]):
            raise UsageError(f"{path}: no such field (did you mean {EXECUTOR_PREFIX}{field}?)")


def add_gpu(parser: StrictParser) -> None:
    """Add --gpu, which every command that starts something has."""
    parser.add_argument("--gpu", metavar="G", help="type of GPU that memory and time are told for, such as a100-40g")


def with_gpu(overrides: Mapping[str, str], gpu: str | None) -> dict[str, str]:
    """Return the overrides of an executor, with the type of GPU that --gpu names, if given.

    Raises:
        RecipeError: The type is unknown.
    """
    from neva_recipes.plan.cost.gpus import find_gpu  # the list of recipes needs no plan

    find_gpu(gpu)
    return {**overrides, **({} if gpu is None else {"gpu": gpu})}


def chosen_executor(arguments: argparse.Namespace, overrides: Mapping[str, str]) -> "Executor":
    """Return the executor that `--executor` names, with fields replaced; prints its remarks.

    Args:
        arguments: The arguments of a command with --executor, --gpu and --recipes.
        overrides: Fields of the executor as text, by name.

    Raises:
        RunError: The executor is unknown.
        RecipeError: Its profile or an override is wrong.
    """
    from executors.registry import find_profile, make_executor

    profile = find_profile(arguments.executor, arguments.recipes)
    executor = make_executor(profile, with_gpu(overrides, arguments.gpu))
    for remark in profile.remarks:
        tell("warning", remark)
    return executor


def executors_command(argv: Sequence[str]) -> int:
    """Print the executors, or the fields of one: `nemo-run executors [NAME [executor.FIELD=VALUE ...]]`."""
    parser = StrictParser(
        "nemo-run executors",
        usage="nemo-run executors [NAME [executor.FIELD=VALUE ...]] [flags]",
        description=(
            "Where recipes can run: the kinds of executors, and profiles, which are\n"
            "executors with their fields filled in. With a name: its fields, what they hold\n"
            "and what they mean."
        ),
    )
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    add_recipes(parser, "profiles")
    arguments = parser.parse(argv)
    if not arguments.words:
        text = "\n".join(_overview(arguments.recipes))
    else:
        from executors.registry import executor_config, find_profile

        name, *words = arguments.words
        of_recipe, of_executor = split_executor_overrides(split_overrides(words))
        for path, value in of_recipe.items():
            raise UsageError(f"{path}={value}: expected {EXECUTOR_PREFIX}FIELD=VALUE")
        profile = find_profile(name, arguments.recipes)
        text = "\n".join(_description(profile, executor_config(profile, of_executor)))
    print_text(mask(text, secret_values(os.environ)))
    return 0


def _overview(recipes: Sequence[Path]) -> Iterator[str]:
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


def _description(profile: "Profile", executor: DraftNode) -> Iterator[str]:
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


def _settings(executor: DraftNode, name: str) -> list[str]:
    """Return the setting that gives a field its current value; for a table, one for each of its values."""
    if name not in executor.__arguments__:
        return [f"{EXECUTOR_PREFIX}{name}=VALUE"]
    value = executor.__arguments__[name]
    if not isinstance(value, dict):
        return [f"{EXECUTOR_PREFIX}{name}={shlex.quote(format_value(value))}"]
    items = [
        f"{EXECUTOR_PREFIX}{name}.{key}={MASK if is_secret(key, str(item)) else shlex.quote(format_value(item))}"
        for key, item in value.items()
    ]
    return items or [f"{EXECUTOR_PREFIX}{name}.NAME=VALUE"]
