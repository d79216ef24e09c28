"""The form of a rule, and how the changes it proposes become remedies that work."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from neva_recipes.config import (
    LanguageConfig,
    PlainTable,
    Recipe,
    RecipeError,
    VisionConfig,
    field_types,
    made_by_its_fields,
)
from neva_recipes.plan.findings import Finding, Remedy

__all__ = ["Found", "Rule", "Way", "around", "found", "multiples", "of_new", "run_rules", "tensor_sizes", "with_values"]

Way = Iterable[Remedy]
"""Changes of one kind that may mend a recipe, nearest first; the first that mends it becomes a remedy."""

_TRIES = 64
"""The most changes of one kind that are tried."""

_TRIES_TOGETHER, _STEPS = 6, 2
"""The most changes of one kind that are tried to mend the error of another change, and how many are combined so."""


@dataclass(frozen=True)
class Found:
    """What a rule found.

    Attributes:
        finding: The finding, without remedies.
        ways: Changes that may mend the recipe.
    """

    finding: Finding
    ways: tuple[Way, ...]


Rule = Callable[[Recipe], Iterator[Found]]
"""Yields what is wrong with a recipe in one respect. Rules do not know each other."""


def found(finding: Finding, *ways: Way) -> Found:
    """Return what a rule found, with changes that may mend it; they may be wrong, since each is tried."""
    return Found(finding, ways)


def around(path: str, value: int, *, lowest: int = 1, highest: int = 1 << 40) -> tuple[Way, Way]:
    """Return the ways of giving a field a smaller or a larger number."""
    below = ({path: number} for number in range(min(value - 1, highest), lowest - 1, -1))
    above = ({path: number} for number in range(max(value + 1, lowest), highest + 1))
    return below, above


def tensor_sizes(recipe: Recipe, *, highest: int = 1 << 40) -> tuple[Way, Way]:
    """Return smaller and larger tensor-parallel sizes; size 1 comes without sequence parallelism."""
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
    """Return changes to the shape of a part of the model; none for pretrained weights, which fix it."""
    return ways if part.source is None else ()


def with_values(recipe: Recipe, values: Remedy) -> Recipe:
    """Return a built recipe with other values in some fields, by dotted path.

    Raises:
        RecipeError: A field does not accept its value.
    """
    changed: Recipe = _with_values(recipe, dict(values))
    return changed


def _with_values(node: Any, values: PlainTable) -> Any:
    direct: PlainTable = {}
    nested: dict[str, PlainTable] = {}
    for path, value in values.items():
        name, _, rest = path.partition(".")
        if rest:
            nested.setdefault(name, {})[rest] = value
        else:
            direct[name] = value
    owner: Any = type(node)
    for name, inner in nested.items():
        child, made = getattr(node, name), made_by_its_fields(field_types(owner)[name])
        direct[name] = made(**inner) if child is None and made else _with_values(child, inner)
    return dataclasses.replace(node, **direct)


def run_rules(rules: Sequence[Rule], recipe: Recipe, others: Sequence[Rule] = ()) -> list[Finding]:
    """Return what rules find in a recipe, each with the nearest changes that make it go away.

    A change that causes another error, of these rules or the others, is no remedy by itself. It is combined with
    changes that mend that error, and dropped if none does.

    Args:
        rules: The rules.
        recipe: The recipe.
        others: Rules that are checked later; what they find in the recipe is not reported here.
    """
    everything = [each for rule in rules for each in rule(recipe)]
    if not everything:
        return []
    trial = _Trial(rules, others, recipe, everything)
    return [trial.mended(each) for each in everything]


def _key(each: Found) -> tuple[str, ...]:
    return (each.finding.code, *each.finding.fields)


class _Trial:
    """Tries changes on a recipe."""

    def __init__(self, rules: Sequence[Rule], others: Sequence[Rule], recipe: Recipe, everything: list[Found]) -> None:
        self._rules, self._others, self._recipe = rules, others, recipe
        self._known = {_key(each) for each in everything if each.finding.severity == "error"}
        self._known_to_others: set[tuple[str, ...]] | None = None

    def mended(self, each: Found) -> Finding:
        """Return a finding with its remedies."""
        remedies: list[Remedy] = []
        lesser: list[tuple[Remedy, list[Found]]] = []
        for way in each.ways:
            second_best = None
            for remedy in islice(way, _TRIES):
                brought = self._brings(remedy, each)
                if brought == []:
                    remedies += [remedy] if remedy not in remedies else []
                    break
                if brought is not None:
                    second_best = second_best or (remedy, brought)
            else:
                lesser += [second_best] if second_best else []
        if not remedies and each.finding.severity == "error":
            for remedy, brought in lesser:
                extended = self._extended(remedy, brought, each, _STEPS)
                remedies += [extended] if extended is not None and extended not in remedies else []
        return dataclasses.replace(each.finding, remedies=tuple(remedies))

    def _extended(self, remedy: Remedy, brought: list[Found], each: Found, steps: int) -> Remedy | None:
        """Return a change extended to mend the errors it causes; `None` if that takes more than `steps` changes."""
        further = []
        for more in (more for way in brought[0].ways for more in islice(way, _TRIES_TOGETHER)):
            if more.keys() & remedy.keys():
                continue
            together = {**remedy, **more}
            after = self._brings(together, each)
            if after == []:
                return together
            if after is not None and _key(after[0]) != _key(brought[0]):
                further.append((together, after))
        if steps > 1:
            for together, after in further[:_TRIES_TOGETHER]:
                found_so = self._extended(together, after, each, steps - 1)
                if found_so is not None:
                    return found_so
        return None

    def _brings(self, remedy: Remedy, each: Found) -> list[Found] | None:
        """Return the errors that a change causes; `None` if it is impossible or does not mend its finding."""
        try:
            changed = with_values(self._recipe, remedy)
        except RecipeError:
            return None
        after = [one for rule in self._rules for one in rule(changed)]
        if _key(each) in {_key(one) for one in after}:
            return None
        new = [one for one in after if one.finding.severity == "error" and _key(one) not in self._known]
        if new or not self._others:
            return new
        if self._known_to_others is None:
            self._known_to_others = {_key(one) for one in self._errors_of_others(self._recipe)}
        return [one for one in self._errors_of_others(changed) if _key(one) not in self._known_to_others]

    def _errors_of_others(self, recipe: Recipe) -> list[Found]:
        return [one for rule in self._others for one in rule(recipe) if one.finding.severity == "error"]
