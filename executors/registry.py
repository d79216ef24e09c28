"""Finds executors by the name after `--executor`: a kind with its defaults, or a profile."""

from collections.abc import Mapping
from functools import partial

from executors.base import Executor
from executors.kinds import (
    ENTRY_POINT_GROUP,
    ExecutorKind,
    executor_kinds,
    find_kind,
    hint_of_recipe,
    kind_class,
    kinds_with,
)
from executors.profiles import Profile, python_profiles, toml_profiles
from neva_recipes.config import (
    COMMAND_LINE,
    Draft,
    NoSuchFieldError,
    RunError,
    UserError,
    build,
    config,
    field_types,
    set_field,
    suggest,
    value_from,
)
from neva_recipes.user_code import Files, each_file_once

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


def find_executor(name: str = "local", overrides: Mapping[str, str] | None = None, *, recipes: Files = ()) -> Executor:
    """Return the executor of this name, ready for use.

    Args:
        name: Name of a kind or profile.
        overrides: Fields as command-line text, such as `{"partition": "debug", "env.NCCL_DEBUG": "INFO"}`.
        recipes: Python files to search for further profiles.

    Raises:
        RunError: No kind or profile has this name (similar names are suggested), or a profile has the name of a kind.
        RecipeError: The profile or an override is wrong, or a field without a default is not set.
    """
    return make_executor(find_profile(name, recipes), overrides or {})


def make_executor(profile: Profile, overrides: Mapping[str, str]) -> Executor:
    """Return the executor that a profile describes, with overrides.

    Args:
        profile: The profile.
        overrides: Fields as command-line text, by dotted path without `executor.`.

    Raises:
        RunError: Its fields contradict each other, or a field without a default is not set.
        RecipeError: The profile or an override is wrong.
    """
    executor = executor_config(profile, overrides)
    try:
        return build(executor)
    except UserError as error:
        origin = "" if find_kind(profile.name) else f" (profile {profile.name} of {profile.origin})"
        raise RunError(f"{error}{origin}") from None


def executor_config(profile: Profile, overrides: Mapping[str, str]) -> Draft[Executor]:
    """Return the config of a profile with overrides; its Fiddle history says where each value comes from.

    Args:
        profile: The profile.
        overrides: Fields as command-line text, by dotted path without `executor.`.

    Raises:
        RecipeError: The profile or an override is wrong.
    """
    executor: Draft[Executor] = profile.load()
    with value_from(COMMAND_LINE):
        _set_fields(executor, overrides, is_new=True)
    return executor


def changed_executor(executor: Executor, overrides: Mapping[str, str]) -> Executor:
    """Return a copy of an executor with overrides.

    Args:
        executor: The executor to copy.
        overrides: Fields as command-line text, by dotted path without `executor.`.

    Raises:
        RecipeError: There is no such field, or it does not accept the value.
    """
    fields = {name: getattr(executor, name) for name in field_types(type(executor))}
    changed = config(type(executor), **fields)
    _set_fields(changed, overrides, is_new=False)
    return build(changed)


def _set_fields(executor: Draft[Executor], overrides: Mapping[str, str], *, is_new: bool) -> None:
    """Set fields; of a new executor a message names the kind that has a field which this one lacks."""
    for path, text in overrides.items():
        try:
            set_field(executor, path, text)
        except NoSuchFieldError:
            others = kinds_with(path.partition(".")[0]) if is_new else []
            of_others = f" of this executor: add --executor {' or '.join(others)}" if others else ""
            if not (hint := hint_of_recipe(path) or of_others):
                raise
            raise NoSuchFieldError(f"executor.{path}: no such field{hint}") from None


def find_profile(name: str, recipes: Files = ()) -> Profile:
    """Return the profile of this name; a kind is a profile with only defaults.

    Args:
        name: Name of a kind or profile.
        recipes: Python files to search for further profiles.

    Raises:
        RunError: No kind or profile has this name, or a profile has the name of a kind.
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


def list_profiles(recipes: Files = ()) -> list[Profile]:
    """Return the profiles of Python files, of the project and of the user, sorted by name.

    Raises:
        RecipeError: A file of profiles cannot be read.
    """
    profiles = _profiles(recipes)
    return [profiles[name] for name in sorted(profiles)]


def _profiles(recipes: Files) -> dict[str, Profile]:
    found: dict[str, Profile] = {}
    for path in each_file_once(recipes):
        profiles = python_profiles(path)
        for name in profiles.keys() & found.keys():
            raise RunError(f"executor {name}: in {found[name].origin} and {path}; rename one of them")
        found |= profiles
    return toml_profiles() | found


def _defaults(kind: ExecutorKind) -> Draft[Executor]:
    return config(kind.load())
