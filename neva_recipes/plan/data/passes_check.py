"""Whether the length of a run suits its data: the number of passes, and the samples of a step."""

import math
from collections.abc import Iterator, Sequence

from neva_recipes.config import DataError, Recipe, how_many
from neva_recipes.plan.checks import Found, Rule, found, rules_for, run_rules
from neva_recipes.plan.cost.schedule import run_passes, short_pass
from neva_recipes.plan.cost.sizes import data_parallel_size
from neva_recipes.plan.data.lengths import SampleLengths, rows_of
from neva_recipes.plan.data.prompt_lengths import measured_prompts
from neva_recipes.plan.findings import Finding, Remedy, error, warning

__all__ = ["check_passes", "check_single_pass"]

_MOST = 1000
"""The most passes without a warning. Published recipes make 1 to 3 passes; trainings on a few dozen samples make some
hundred passes, in which the model learns the samples by heart."""

_USUAL = 3
"""The number of passes proposed: the most that published recipes make."""

_STEPS, _EPOCHS, _DATA = "trainer.max_steps", "trainer.max_epochs", "data.data_path"
_LOADER, _LENGTH = "data.dataloader_type", "data.sequence_length"
_GLOBAL, _MICRO = "data.global_batch_size", "data.micro_batch_size"


def check_passes(recipe: Recipe, samples: SampleLengths) -> list[Finding]:
    """Return how a recipe repeats its data, if the data is here and its samples are counted or estimated.

    Of text a shorter sequence makes more samples, of conversations it does not.

    Args:
        recipe: A recipe without errors of its own.
        samples: Its samples.
    """
    # A single pass repeats nothing; `short-pass` reports on it.
    if not samples.measured or not samples.total or recipe.data.dataloader_type == "single":
        return []
    length, total, tokens = recipe.data.sequence_length, samples.total, samples.text_tokens

    def total_of(changed: Recipe) -> int:
        return rows_of(tokens, changed.data.sequence_length) if tokens else total

    shorter = [{_LENGTH: 1 << power} for power in range(length.bit_length() - 1, 5, -1)] if tokens else []
    shorter = [way for way in shorter if way[_LENGTH] < length]
    rules: tuple[Rule, ...] = (
        lambda changed: _passes(changed, total_of(changed), shorter),
        lambda changed: _batch(changed, total_of(changed), shorter),
    )
    return run_rules(rules, recipe, rules_for(None))


def check_single_pass(recipe: Recipe) -> Iterator[Found]:
    """Yield an error if the counted samples are too few for a run of a single pass."""
    # A rule on the recipe alone reports two epochs, which are too long for any file.
    if recipe.data.dataloader_type != "single" or (recipe.trainer.max_epochs or 0) > 1:
        return
    try:
        measured = measured_prompts(recipe, "data.data_path")
    except DataError:
        return  # check_data_files reports it
    if measured is None or not measured.counted or (problem := short_pass(recipe, measured.total)) is None:
        return
    steps = measured.total // recipe.data.global_batch_size
    shorter = [{_STEPS: steps}] if recipe.trainer.max_steps is not None and steps else []
    fields = [_STEPS] if recipe.trainer.max_steps is not None else []
    yield found(
        error("short-pass", problem, recipe, _LOADER, _DATA, _GLOBAL, *fields),
        [{_LOADER: "cyclic"}],
        shorter,
    )


def _passes(recipe: Recipe, total: int, shorter: Sequence[Remedy]) -> Iterator[Found]:
    passes = run_passes(recipe, total)
    if passes is None or passes <= _MOST:
        return
    field = _STEPS if recipe.trainer.max_steps is not None else _EPOCHS
    steps = math.ceil(_USUAL * total / recipe.data.global_batch_size)
    message = (
        f"the run makes about {float(f'{passes:.1e}'):,.0f} passes over {how_many(total, 'sample')}; published recipes "
        f"make 1 to {_USUAL}, and more than {_MOST:,} teach nothing new"
    )
    yield found(
        warning("many-passes", message, recipe, field, _GLOBAL, _DATA),
        [{_EPOCHS: _USUAL, _STEPS: None}],
        [{_STEPS: steps}] if field == _STEPS else [],
        shorter,
    )


def _batch(recipe: Recipe, total: int, shorter: Sequence[Remedy]) -> Iterator[Found]:
    size = recipe.data.global_batch_size
    if size > total:
        message = f"each step takes {size:,} samples of the {total:,} that there are, and so some of them several times"
        message = message if total > 1 else f"each step takes the one sample that there is {size:,} times"
        advice = "" if total >= (data_parallel_size(recipe) or 1) else "take fewer GPUs, or more samples"
        finding = warning("batch-repeats", message, recipe, _GLOBAL, _DATA, advice=advice)
        yield found(finding, _smaller(recipe, total), shorter)


def _smaller(recipe: Recipe, total: int) -> Iterator[Remedy]:
    """Yield batches of at most as many samples as there are, the largest first for each micro batch size."""
    replicas = data_parallel_size(recipe) or 1
    for micro in range(recipe.data.micro_batch_size, 0, -1):
        if size := total // (micro * replicas) * micro * replicas:
            yield {_GLOBAL: size} if micro == recipe.data.micro_batch_size else {_GLOBAL: size, _MICRO: micro}
