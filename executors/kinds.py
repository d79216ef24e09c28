"""The kinds of executors: built-in ones and those of installed packages, each imported when it is used.

A package offers a kind by an entry point:

    [project.entry-points."neva_recipes.executors"]
    mycluster = "mylab.executors:MyClusterExecutor"
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from executors.base import Executor
from neva_recipes.config import RunError, field_types, suggest
from neva_recipes.user_code import PackageObject, package_objects

__all__ = ["ENTRY_POINT_GROUP", "ExecutorKind", "executor_kinds", "find_kind", "hint_of_recipe", "kind_class"]

ENTRY_POINT_GROUP = "neva_recipes.executors"

_BUILT_IN = {
    "local": "executors.local:LocalExecutor",
    "slurm": "executors.slurm.executor:SlurmExecutor",
    "docker": "executors.docker.executor:DockerExecutor",
    "nemo_run": "executors.nemo_run.executor:NemoRunExecutor",
}


_OF_PIPELINES = {"pipeline": "executors.pipelines.executor:PipelineExecutor"}
"""Kinds that users cannot choose; only job.json of a pipeline names them."""

_WORDS_OF_RECIPES: Mapping[str, tuple[str, ...]] = {
    "trainer.devices": (
        *("devices", "gpus", "gpus_per_node", "n_gpus", "nproc_per_node", "ntasks", "ntasks_per_node", "num_gpus"),
        *("tasks", "tasks_per_node"),
    ),
    "trainer.num_nodes": ("n_nodes", "nnodes", "node_count", "nodes", "num_nodes"),
}
"""Words of Slurm and of other launchers for the size of a job, by the field of the recipe that is meant."""


@dataclass(frozen=True)
class ExecutorKind:
    """An executor class and its name.

    Attributes:
        name: Its name on the command line, in profiles and in job.json.
        origin: Where it comes from, as shown to users.
        load: Imports and returns the class.
    """

    name: str
    origin: str
    load: Callable[[], type[Executor]]


def executor_kinds() -> list[ExecutorKind]:
    """Return the built-in kinds, then those of installed packages; none of them is imported."""
    return [*(_built_in(name) for name in _BUILT_IN), *_kinds_of_packages()]


def find_kind(name: str) -> ExecutorKind | None:
    """Return the kind of that name; `None` if there is none.

    Raises:
        RunError: Several packages offer it.
    """
    if name in _BUILT_IN:  # skips the package metadata, which is slow to read
        return _built_in(name)
    found = [kind for kind in _kinds_of_packages() if kind.name == name]
    if len(found) > 1:
        raise RunError(f"executor {name}: offered by {' and '.join(kind.origin for kind in found)}; uninstall one")
    return found[0] if found else None


def kind_class(name: object) -> type[Executor]:
    """Return the class of a kind.

    Raises:
        RunError: There is no such kind (similar names are suggested), several packages offer it, or it is no executor.
        RecipeError: Its package cannot be imported.
    """
    if isinstance(name, str) and name in _OF_PIPELINES:
        return _load_built_in(_OF_PIPELINES[name])
    kind = find_kind(name) if isinstance(name, str) else None
    if kind is None:
        known = [kind.name for kind in executor_kinds()]
        hint = suggest(name, known) if isinstance(name, str) else ""
        raise RunError(f"{name!r} is not a kind of executor{hint}; expected {', '.join(known)}")
    return kind.load()


def _built_in(name: str) -> ExecutorKind:
    return ExecutorKind(name, "built in", partial(_load_built_in, _BUILT_IN[name]))


def _load_built_in(home: str) -> type[Executor]:
    module, _, name = home.partition(":")
    cls: type[Executor] = getattr(importlib.import_module(module), name)
    return cls


def _kinds_of_packages() -> list[ExecutorKind]:
    return [
        ExecutorKind(offered.name, f"package {offered.package}", partial(_load_offered, offered))
        for offered in package_objects(ENTRY_POINT_GROUP)
    ]


def _load_offered(offered: PackageObject) -> type[Executor]:
    if offered.name in _BUILT_IN:
        raise RunError(f"{offered.name} is the name of a built-in kind, which goes before it")
    where = f"executor {offered.name} ({offered.value})"
    cls = offered.load("executor")
    if not (isinstance(cls, type) and issubclass(cls, Executor)):
        raise RunError(f"{where}: expected a subclass of executors.Executor, got {cls!r}")
    if "__dataclass_fields__" not in vars(cls):
        raise RunError(f"{where}: {cls.__name__} is not declared with @dataclass(frozen=True, kw_only=True)")
    if inspect.isabstract(cls):
        raise RunError(f"{where}: {cls.__name__} lacks {', '.join(sorted(cls.__abstractmethods__))}")
    if getattr(cls, "kind", None) != offered.name:
        raise RunError(f"{where}: {cls.__name__}.kind is {getattr(cls, 'kind', None)!r}: expected {offered.name!r}")
    found: type[Executor] = cls
    return found


def kinds_with(field: str) -> list[str]:
    """Return the names of the built-in kinds whose executors have a field."""
    return [name for name, home in _BUILT_IN.items() if field in field_types(_load_built_in(home))]


def hint_of_recipe(name: str) -> str:
    """Return the end of a message about a field that an executor does not have: the field of the recipe that is meant.

    Args:
        name: The field as it was written, such as `gpus-per-node`.

    Returns:
        Empty if no field of a recipe is meant.
    """
    word = name.replace("-", "_").lower()
    fields = [field for field, words in _WORDS_OF_RECIPES.items() if word in words]
    return f" (did you mean {fields[0]}, which is a field of the recipe?)" if fields else ""
