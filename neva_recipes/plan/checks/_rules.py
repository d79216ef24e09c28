"""What a rule is, and how the changes it proposes become remedies that hold."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from neva_recipes.config import LanguageConfig, Recipe, RecipeError, VisionConfig
from neva_recipes.plan.findings import Finding, Remedy

__all__ = ["Found", "Rule", "Way", "around", "found", "multiples", "of_new", "run_rules", "tensor_sizes", "with_values"]

Way = Iterable[Remedy]
"""Changes of one kind that may mend a recipe, the nearest first; the first that does becomes a remedy."""

_TRIES = 64
"""Changes of one kind that are tried."""


@dataclass(frozen=True)
class Found:
    """What a rule found.

    Attributes:
        finding: The finding, without remedies.
        ways: Changes that may mend it.
    """

    finding: Finding
    ways: tuple[Way, ...]


Rule = Callable[[Recipe], Iterator[Found]]
"""Yields what is wrong with a recipe in one respect. Rules know nothing of each other."""


def found(finding: Finding, *ways: Way) -> Found:
    """Return what a rule found, with changes that may mend it; they need not be right, each is tried."""
    return Found(finding, ways)


def around(path: str, value: int, *, lowest: int = 1, highest: int = 1 << 40) -> tuple[Way, Way]:
    """Return the ways of giving a field a smaller or a larger number."""
    below = ({path: number} for number in range(min(value - 1, highest), lowest - 1, -1))
    above = ({path: number} for number in range(max(value + 1, lowest), highest + 1))
    return below, above


def tensor_sizes(recipe: Recipe, *, highest: int = 1 << 40) -> tuple[Way, Way]:
    """Return the ways of sharing layers by fewer or by more processes; one alone has no sequence parallelism."""
    size, sequence = "parallel.tensor_model_parallel_size", "parallel.sequence_parallel"
    below, above = around(size, recipe.parallel.tensor_model_parallel_size, highest=highest)
    alone = {sequence: False} if recipe.parallel.sequence_parallel else {}
    return ({**change, **alone} if change[size] == 1 else change for change in below), above


def multiples(path: str, value: int, factor: int) -> tuple[Way, Way]:
    """Return the ways of giving a field a smaller or a larger multiple of a number."""
    below = ({path: number * factor} for number in range((value - 1) // factor, 0, -1))
    above = ({path: number * factor} for number in range(value // factor + 1, value // factor + 1 + _TRIES))
    return below, above


def of_new(part: LanguageConfig | VisionConfig, *ways: Way) -> tuple[Way, ...]:
    """Return ways that change the shape of a part of the model, none if its weights are given and so its shape."""
    return ways if part.from_pretrained is None else ()


def with_values(recipe: Recipe, values: Remedy) -> Recipe:
    """Return a built recipe with other values in some fields, by dotted path.

    Raises:
        RecipeError: A field does not accept its value.
    """
    changed: Recipe = _with_values(recipe, dict(values))
    return changed


def _with_values(node: Any, values: dict[str, Any]) -> Any:
    direct: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        name, _, rest = path.partition(".")
        if rest:
            nested.setdefault(name, {})[rest] = value
        else:
            direct[name] = value
    direct |= {name: _with_values(getattr(node, name), inner) for name, inner in nested.items()}
    return dataclasses.replace(node, **direct)


def run_rules(rules: Sequence[Rule], recipe: Recipe) -> list[Finding]:
    """Return what rules find in a recipe, each with the nearest changes that make it go away.

    A change that brings an error of its own is a remedy only for an error that no other change mends.
    """
    everything = [each for rule in rules for each in rule(recipe)]
    known = _keys(everything, errors_only=True)
    return [_mended(each, rules, recipe, known) for each in everything]


def _keys(everything: Iterable[Found], *, errors_only: bool) -> set[tuple[str, ...]]:
    return {_key(each) for each in everything if not errors_only or each.finding.severity == "error"}


def _key(each: Found) -> tuple[str, ...]:
    return (each.finding.code, *each.finding.fields)


def _mended(each: Found, rules: Sequence[Rule], recipe: Recipe, known: set[tuple[str, ...]]) -> Finding:
    remedies: list[Remedy] = []
    lesser: list[Remedy] = []
    for way in each.ways:
        second_best = None
        for remedy in islice(way, _TRIES):
            after = _after(remedy, rules, recipe)
            if after is None or _key(each) in _keys(after, errors_only=False):
                continue
            if _keys(after, errors_only=True) <= known:
                remedies += [remedy] if remedy not in remedies else []
                break
            second_best = second_best or remedy
        else:
            lesser += [second_best] if second_best else []
    if each.finding.severity == "error":
        remedies = remedies or lesser
    return dataclasses.replace(each.finding, remedies=tuple(remedies))


def _after(remedy: Remedy, rules: Sequence[Rule], recipe: Recipe) -> list[Found] | None:
    try:
        changed = with_values(recipe, remedy)
    except RecipeError:
        return None
    return [each for rule in rules for each in rule(changed)]
