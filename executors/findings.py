"""The findings of a plan that prevent its recipe from being started, and one on GPUs that a variable hides."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from neva_recipes.config import RecipeError, how_many
from neva_recipes.plan import Finding, Plan

__all__ = ["ImpossibleError", "is_due", "refused_here", "require_here", "require_possible", "too_few_visible"]


_OF_HERE = frozenset({"files", "machine"})
"""Subjects of errors that may not occur on another machine."""

_VISIBLE = "CUDA_VISIBLE_DEVICES"


class ImpossibleError(RecipeError):
    """A recipe that cannot run on any machine.

    Attributes:
        plan: Its plan.
    """

    def __init__(self, message: str, plan: Plan) -> None:
        super().__init__(message)
        self.plan = plan


def require_possible(plan: Plan) -> None:
    """Raise `ImpossibleError` with the first error that holds on every machine.

    Memory errors are ignored if the GPU type is only assumed: the recipe may be for another type.
    """
    assumed = {"memory"} if plan.gpu_assumed else set()
    try:
        _require([finding for finding in plan.errors if finding.about not in {*_OF_HERE, *assumed}])
    except RecipeError as error:
        raise ImpossibleError(str(error), plan) from None


def require_here(plan: Plan, but_in: Path | None = None) -> None:
    """Raise `RecipeError` with the first error about this machine: it has no GPU or lacks files of the recipe.

    Args:
        plan: The plan of the recipe.
        but_in: Folder whose files do not exist yet; errors about them are ignored.
    """
    of_here = [finding for finding in plan.errors if finding.about in _OF_HERE and not _is_below(finding, but_in)]
    of_here.sort(key=lambda finding: finding.about != "machine")  # fetching files would not help without a GPU
    _require(of_here)


def refused_here(plan: Plan, but_in: Path | None = None) -> list[Finding]:
    """Return the errors for which a launch is refused here, although it may be possible elsewhere.

    Args:
        plan: The plan of the recipe.
        but_in: As for `require_here`.
    """
    return [finding for finding in plan.errors if finding.is_of_here and not _is_below(finding, but_in)]


def is_due(finding: Finding, folders: Iterable[str | Path]) -> bool:
    """Return whether a finding is about a path that will be made.

    Args:
        finding: The finding.
        folders: Files and folders that do not exist yet.
    """
    values = finding.fields.values() if finding.path is None else [finding.path]
    names = [name for value in values for name in (value if isinstance(value, list | tuple) else [value])]
    paths = [Path(name) for name in names if isinstance(name, str)]
    return any(path.is_relative_to(folder) for folder in folders for path in paths)


def too_few_visible(env: Mapping[str, str], plan: Plan) -> Iterator[Finding]:
    """Yield a warning if the variable names fewer GPUs than a node has ranks, each of which takes one.

    Args:
        env: The variables that an executor gives to every rank.
        plan: The plan of a recipe.
    """
    value = env.get(_VISIBLE)
    if value is None or plan.on_cpu or plan.layout is None:
        return
    # CUDA passes over whatever follows a name that stands for no GPU.
    named = len([*takewhile(lambda name: name.strip() not in ("", "-1", "NoDevFiles"), value.split(","))])
    ranks = plan.layout.processes_per_node
    if named < ranks:
        takes = "each of a node's ranks takes one" if ranks > 1 else "the rank takes one"
        message = f"shows {how_many(named, 'GPU')} of a node, and {takes}: {ranks} in all"
        fields = {f"executor.env.{_VISIBLE}": value}
        advice = "leave it out, or name as many"
        yield Finding("gpus-hidden", "warning", message, fields, advice=advice, about="executor")


def _is_below(finding: Finding, folder: Path | None) -> bool:
    return folder is not None and is_due(finding, [folder])


def _require(errors: Sequence[Finding]) -> None:
    if errors:
        more = f" (and {len(errors) - 1} more: --dry-run lists them)" if len(errors) > 1 else ""
        raise RecipeError(f"{errors[0].line()}{more}")
