"""Differences between a recipe and the recipe of the checkpoint that it will go on from."""

import dataclasses
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neva_recipes.config import (
    CheckpointError,
    ConfigNode,
    LlavaDataConfig,
    Recipe,
    format_value,
)
from neva_recipes.plan.origins.checkpoints import other_vocabulary
from neva_recipes.plan.resuming.effects import Effect, effect_of
from neva_recipes.plan.tokenizers.tokenizer import known_vocabulary

__all__ = ["FieldChange", "changed_fields", "require_resumable", "words_for"]


@dataclass(frozen=True)
class FieldChange:
    """A field whose value differs from that of the checkpoint.

    Attributes:
        path: Dotted path; `data.class` stands for the kind of the data.
        old: Value in the checkpoint's recipe.
        new: Value in the recipe that goes on.
        effect: The effect of the change.
        is_group: Whether it is a table, or a group of fields, whose value is then its kind, or `None` without one.
    """

    path: str
    old: Any
    new: Any
    effect: Effect
    is_group: bool


def changed_fields(saved: Recipe, recipe: Recipe) -> list[FieldChange]:
    """Return the fields that changed, in the order of definition.

    Args:
        saved: The recipe of the checkpoint.
        recipe: The recipe that goes on from it.
    """
    return [
        FieldChange(path, old, new, effect_of(path, saved, recipe), is_group)
        for path, old, new, is_group in _differences(saved, recipe, "")
    ]


def _differences(old: Any, new: Any, prefix: str) -> Iterator[tuple[str, Any, Any, bool]]:
    for field in dataclasses.fields(new):
        path, there, here = f"{prefix}{field.name}", getattr(old, field.name), getattr(new, field.name)
        if not isinstance(there, ConfigNode) and not isinstance(here, ConfigNode):
            if there != here:
                yield path, there, here, isinstance(here, dict)
        elif type(there) is type(here):
            yield from _differences(there, here, f"{path}.")
        else:
            yield path if None in (there, here) else f"{path}.class", _kind(there), _kind(here), True


def _kind(node: ConfigNode | None) -> str | None:
    return None if node is None else type(node).__name__


def words_for(changes: Sequence[FieldChange], typed: Sequence[str]) -> str:
    """Return the words that make changes on a command line: those that were typed, else one for each field."""
    words = typed or [f"{change.path}={format_value(change.new)}" for change in changes if not change.is_group]
    return " ".join(f"{path}{equals}{shlex.quote(value)}" for path, equals, value in (w.partition("=") for w in words))


def require_resumable(
    checkpoint: Path,
    saved: Recipe,
    recipe: Recipe,
    consumed_samples: int,
    vocabulary: str | None,
    typed: Sequence[str] = (),
) -> None:
    """Raise `CheckpointError` for the first reason why a recipe cannot go on from a checkpoint.

    Args:
        checkpoint: The checkpoint, in its run's directory.
        saved: The recipe it was trained with.
        recipe: The recipe that will go on from it.
        consumed_samples: Samples that the checkpoint was trained on.
        vocabulary: Digest of the vocabulary that the checkpoint was trained with; `None` if unknown.
        typed: The words that changed the recipe, if any were typed.
    """
    run = shlex.quote(str(checkpoint.parents[1]))
    changes = changed_fields(saved, recipe)
    for change in changes:
        if change.effect.kind == "refused":
            old, new = format_value(change.old), format_value(change.new)
            # No value on the command line makes a group, or changes its kind.
            ways = (
                "go on with the recipe of the run, or start a new run with yours"
                if change.is_group
                else f"go on with {change.path}={shlex.quote(old)}, or start a new run: nemo-run rerun {run} "
                f"{words_for(changes, typed)}"
            )
            raise CheckpointError(
                f"{checkpoint}: {change.path} is {old} there and {new} in the recipe: {change.effect.why}; {ways}"
            )
    size = recipe.data.global_batch_size
    is_grouped = isinstance(recipe.data, LlavaDataConfig) and recipe.data.group_by_modality_length
    if is_grouped and consumed_samples % size:
        before = saved.data.global_batch_size
        sizes = [f"data.global_batch_size={before}"] if consumed_samples % before == 0 else []
        raise CheckpointError(
            f"{checkpoint}: {consumed_samples} samples are not a whole number of batches of {size}, which "
            "data.group_by_modality_length=true counts: set "
            f"{' or '.join([*sizes, 'data.group_by_modality_length=false'])}"
        )
    there = known_vocabulary(saved) if vocabulary is None else vocabulary
    if problem := other_vocabulary(there, known_vocabulary(recipe), saved, recipe):
        raise CheckpointError(f"{checkpoint}: {problem.line()}")
