"""Executors by the name that follows `--executor`: a kind with its defaults, or a profile."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import fiddle as fdl

from executors._kinds import ENTRY_POINT_GROUP, ExecutorKind, executor_kinds, find_kind, kind_class
from executors.base import Executor
from executors.profiles import Profile, python_profiles, toml_profiles
from neva_recipes.config import (
    COMMAND_LINE,
    RunError,
    UserError,
    build,
    config,
    field_types,
    set_field,
    suggest,
    value_from,
)

__all__ = [
    "ENTRY_POINT_GROUP",
    "ExecutorKind",
    "changed_executor",
    "executor_config",
    "executor_kinds",
    "find_executor",
    "find_profile",
    "kind_class",
    "list_profiles",
    "make_executor",
]


def find_executor(
    name: str = "local", overrides: Mapping[str, str] | None = None, *, recipes: Path | None = None
) -> Executor:
    """Return the executor of that name, ready for use.

    Args:
        name: A kind, or a profile.
        overrides: Fields as command-line text, such as `{"partition": "debug", "env.NCCL_DEBUG": "INFO"}`.
        recipes: A Python file whose profiles count too.

    Raises:
        RunError: There is nothing of that name, with the nearest names, or a profile has the name of a kind.
        RecipeError: The profile or an override is wrong, or a field that has no default is not set.
    """
    return make_executor(find_profile(name, recipes), overrides or {})


def make_executor(profile: Profile, overrides: Mapping[str, str]) -> Executor:
    """Return the executor that a profile describes, with fields replaced.

    Args:
        profile: Which one.
        overrides: Fields as command-line text, by dotted path without `executor.`.

    Raises:
        RunError: Its fields do not go together, or one that has no default is not set.
        RecipeError: The profile or an override is wrong.
    """
    executor = executor_config(profile, overrides)
    try:
        return build(executor)
    except UserError as error:
        origin = "" if find_kind(profile.name) else f" (profile {profile.name} of {profile.origin})"
        raise RunError(f"{error}{origin}") from None


def executor_config(profile: Profile, overrides: Mapping[str, str]) -> fdl.Config[Executor]:
    """Return the config of a profile with fields replaced; Fiddle's history of it says where each value is from.

    Args:
        profile: Which one.
        overrides: Fields as command-line text, by dotted path without `executor.`.

    Raises:
        RecipeError: The profile or an override is wrong.
    """
    executor: fdl.Config[Executor] = profile.load()
    with value_from(COMMAND_LINE):
        for path, text in overrides.items():
            set_field(executor, path, text)
    return executor


def changed_executor(executor: Executor, overrides: Mapping[str, str]) -> Executor:
    """Return an executor with fields replaced.

    Args:
        executor: What it is like otherwise.
        overrides: Fields as command-line text, by dotted path without `executor.`.

    Raises:
        RecipeError: There is no such field, or it does not accept the value.
    """
    fields = {name: getattr(executor, name) for name in field_types(type(executor))}
    changed = config(type(executor), **fields)
    for path, text in overrides.items():
        set_field(changed, path, text)
    return build(changed)


def find_profile(name: str, recipes: Path | None = None) -> Profile:
    """Return the profile of that name; a kind is one too, with nothing but defaults.

    Args:
        name: A kind, or a profile.
        recipes: A Python file whose profiles count too.

    Raises:
        RunError: There is nothing of that name, or a profile has the name of a kind.
        RecipeError: A file of profiles cannot be read.
    """
    profiles = _profiles(recipes)
    kind = find_kind(name)
    if name in profiles and kind is not None:
        raise RunError(f"{profiles[name].origin}: {name} is the name of a kind of executor: rename that profile")
    if name in profiles:
        return profiles[name]
    if kind is None:
        hint = suggest(name, [*profiles, *(kind.name for kind in executor_kinds())])
        raise RunError(f"executor {name}: no such kind or profile{hint}; nemo-run executors shows all")
    return Profile(kind.name, kind.origin, partial(_defaults, kind))


def list_profiles(recipes: Path | None = None) -> list[Profile]:
    """Return the profiles of a Python file, if one is given, of the project and of the user, by name.

    Raises:
        RecipeError: A file of profiles cannot be read.
    """
    profiles = _profiles(recipes)
    return [profiles[name] for name in sorted(profiles)]


def _profiles(recipes: Path | None) -> dict[str, Profile]:
    return toml_profiles() | (python_profiles(recipes) if recipes is not None else {})


def _defaults(kind: ExecutorKind) -> fdl.Config[Executor]:
    return config(kind.load())
