"""Rules on the optimizer, its schedule and the length of training."""

from collections.abc import Iterator

from neva_recipes.config import Recipe, how_many
from neva_recipes.families import fits, trained_names
from neva_recipes.plan.checks._rules import Found, Rule, found
from neva_recipes.plan.cost.schedule import steps_without_rate, warmup_steps
from neva_recipes.plan.findings import error, warning
from neva_recipes.plan.rates import ADAPTER_RATE, RATES, highest_published_rate, own_rate

__all__ = ["schedule_rules", "training_rules"]

_LR = "optim.lr"
_LR_OF = "optim.lr_of"
_MIN_LR = "optim.min_lr"
_STYLE = "optim.lr_decay_style"
_DECAY = "optim.lr_decay_steps"
_WARMUP = "optim.warmup_steps"
_RATIO = "optim.warmup_ratio"
_STEPS = "trainer.max_steps"
_EPOCHS = "trainer.max_epochs"
_EMA = "trainer.ema_decay"

_TIMES = 10
"""A learning rate this many times a rate that is known to train is worth a warning."""


def learning_rates(recipe: Recipe) -> Iterator[Found]:
    """The learning rate does not rise after its peak."""
    optim = recipe.optim
    if optim.min_lr > optim.lr:
        message = f"the learning rate would end at {optim.min_lr:g}, above its peak of {optim.lr:g}"
        yield found(error("min-lr", message, recipe, _MIN_LR, _LR), [{_MIN_LR: optim.lr}], [{_MIN_LR: 0.0}])
    elif optim.lr_decay_style == "constant" and optim.min_lr > 0:
        message = "a constant learning rate never falls to min_lr"
        yield found(warning("min-lr-unused", message, recipe, _MIN_LR, _STYLE), [{_MIN_LR: 0.0}], [{_STYLE: "cosine"}])


def large_rate(recipe: Recipe) -> Iterator[Found]:
    """The learning rate is of the order that such models are trained with."""
    rate, own, highest = recipe.optim.lr, own_rate(recipe), highest_published_rate()
    # Rates are decimal numbers: 10 * 2e-5 is not exactly 2e-4.
    if own is not None and rate >= _TIMES * own * (1 - 1e-9):
        message = f"{rate / own:,.3g} times the {own:g} that {recipe.name} takes for a model of this size"
    elif own is None and rate > _TIMES * highest:
        message = f"more than {_TIMES} times the highest learning rate of published recipes, {highest:g}"
    else:
        return
    message += ": weights begin at about 0.02, and a step would move every one by about as much as the rate"
    digits, _, exponent = f"{rate:e}".partition("e")
    # The minus sign of the exponent is easily forgotten.
    turned = [{_LR: float(f"{digits}e{-int(exponent)}")}] if int(exponent) > 0 else []
    lowest = min(rates.published for rates in RATES.values())
    advice = "" if own is not None else f"published recipes take {lowest:g} to {highest:g}"
    yield found(warning("lr-large", message, recipe, _LR, advice=advice), turned, [] if own is None else [{_LR: own}])


def small_rate(recipe: Recipe) -> Iterator[Found]:
    """Adapters have a learning rate of their order, which is that of no weights."""
    model, optim, weights = recipe.model, recipe.optim, RATES["llava.finetune"].published
    adapted = [part for part in ("language", "vision") if getattr(getattr(model, part), "lora", None) is not None]
    if not adapted or optim.lr > weights or any(not pattern.startswith("projector") for pattern in optim.lr_of):
        return
    message = (
        f"adapters train at {ADAPTER_RATE:g} in LLaVA-1.5, ten times the {weights:g} of weights: at a rate of weights "
        "they learn little"
    )
    fields = [_LR, *(f"model.{part}.lora.rank" for part in adapted)]
    yield found(warning("lr-small", message, recipe, *fields), [{_LR: ADAPTER_RATE}])


def large_own_rates(recipe: Recipe) -> Iterator[Found]:
    """The rates of `lr_of` are of the order that such weights are trained with."""
    highest = highest_published_rate()
    own = own_rate(recipe) or highest
    for pattern, rate in recipe.optim.lr_of.items():
        usual = max(own, highest) if pattern.startswith("projector") else own
        if rate >= _TIMES * usual * (1 - 1e-9):
            message = f"{rate / usual:,.3g} times the {usual:g} that {pattern} is trained with at most"
            advice = f"leave {_LR_OF}.{pattern} out, or lower it"
            yield found(warning("lr-large", message, recipe, _LR_OF, advice=advice))


def own_rates(recipe: Recipe) -> Iterator[Found]:
    """Every pattern of `lr_of` means a weight that is trained."""
    if not recipe.optim.lr_of:
        return
    names = list(trained_names(recipe.model))
    for pattern in recipe.optim.lr_of:
        if not any(fits(pattern, name) for name in names):
            message = f"no weight that is trained has a name like {pattern}, but {', '.join(_examples(names))}"
            yield found(error("lr-of", message, recipe, _LR_OF, advice=f"leave {_LR_OF}.{pattern} out, or correct it"))


def _examples(names: list[str]) -> list[str]:
    """Return the first and the last of the names of each part."""
    of_parts = ([name for name in names if name.startswith(f"{part}.")] for part in ("language", "vision", "projector"))
    return [name for some in of_parts if some for name in dict.fromkeys((some[0], some[-1]))]


def schedule_length(recipe: Recipe) -> Iterator[Found]:
    """The schedule is longer than its warm-up, and has a falling part."""
    optim = recipe.optim
    if optim.lr_decay_steps is None:
        return
    if optim.lr_decay_style == "constant" and optim.warmup_ratio is None:
        message = "a constant learning rate has no end to reach"
        yield found(warning("lr-decay-unused", message, recipe, _DECAY, _STYLE), [{_DECAY: None}], [{_STYLE: "cosine"}])
    elif optim.warmup_steps is not None and optim.warmup_steps >= optim.lr_decay_steps:
        message = f"warm-up takes all of the schedule's {optim.lr_decay_steps} steps, and then the rate drops to min_lr"
        longer = [{_DECAY: 2 * optim.warmup_steps}] if optim.warmup_steps else []
        yield found(error("lr-decay-short", message, recipe, _DECAY, _WARMUP), longer, [{_DECAY: None}])


def one_warmup(recipe: Recipe) -> Iterator[Found]:
    """Warm-up is given in steps or as a share, not both."""
    if recipe.optim.warmup_steps is not None and recipe.optim.warmup_ratio is not None:
        message = "warmup_steps and warmup_ratio are both set"
        yield found(error("warmup-twice", message, recipe, _WARMUP, _RATIO), [{_RATIO: None}], [{_WARMUP: None}])


def whole_warmup(recipe: Recipe, steps: int | None = None) -> Iterator[Found]:
    """Warm-up ends before the training does.

    Args:
        recipe: The recipe.
        steps: The steps of its passes over the data; `None` if they are unknown, or it gives its steps itself.
    """
    optim, steps = recipe.optim, recipe.trainer.max_steps if steps is None else steps
    is_share = optim.warmup_steps is None
    if steps is None and not (is_share and optim.warmup_ratio == 1.0):
        return
    if steps is not None and warmup_steps(optim, steps) < steps:
        return
    whole = "training" if steps is None else f"{steps:,} steps"
    message = f"the learning rate never reaches {optim.lr:g}: warm-up takes all of the {whole}"
    if steps == 1:
        message = "the learning rate of the only step is zero, where warm-up begins: it changes nothing"
    involved = [_RATIO if is_share else _WARMUP, *([_DECAY] if is_share and optim.lr_decay_steps else [])]
    finding = warning("warmup-too-long", message, recipe, *involved, _length_field(recipe))
    if is_share:
        shorter = {_WARMUP: (steps or 0) * 3 // 100, _RATIO: None}
        yield found(finding, [{_RATIO: 0.03}], [{_DECAY: None}], [shorter])
    else:
        shorter_ones = [{_WARMUP: (steps or 0) * 3 // 100}, {_WARMUP: 0}]
        yield found(finding, shorter_ones, [{_STEPS: (optim.warmup_steps or 0) + 1}])


def rate_above_zero(recipe: Recipe, steps: int | None = None) -> Iterator[Found]:
    """No step is trained at a learning rate of zero, but the first one of a warm-up.

    Args:
        recipe: The recipe.
        steps: As of `whole_warmup`.
    """
    optim, steps = recipe.optim, recipe.trainer.max_steps if steps is None else steps
    if steps is None or not (idle := steps_without_rate(optim, steps)):
        return
    last = f"the last {how_many(idle, 'step')} of {steps:,}" if idle > 1 else f"the last of {steps:,} steps"
    changes = "change" if idle > 1 else "changes"
    message = f"the learning rate is zero after step {steps - idle:,}: {last} {changes} nothing"
    low = float(f"{optim.lr / 10:g}")
    yield found(
        warning("lr-zero", message, recipe, _DECAY, _MIN_LR, _length_field(recipe)), [{_MIN_LR: low}], [{_DECAY: None}]
    )


def _length_field(recipe: Recipe) -> str:
    return _EPOCHS if recipe.trainer.max_steps is None else _STEPS


def moments(recipe: Recipe) -> Iterator[Found]:
    """Adam's moving averages take in new gradients."""
    for path, usual in (("optim.adam_beta1", 0.9), ("optim.adam_beta2", 0.999)):
        if getattr(recipe.optim, path.rpartition(".")[2]) == 1.0:
            message = "a decay of 1 never takes in a gradient, and its correction divides by zero"
            yield found(error("adam-beta", message, recipe, path), [{path: usual}])


def length(recipe: Recipe) -> Iterator[Found]:
    """The length of training is given exactly once."""
    steps, epochs = recipe.trainer.max_steps, recipe.trainer.max_epochs
    if (steps is None) == (epochs is None):
        message = "exactly one of max_steps and max_epochs must be set, the other none"
        ways = ([{_EPOCHS: 1}],) if steps is None else ([{_EPOCHS: None}], [{_STEPS: None}])
        yield found(error("length", message, recipe, _STEPS, _EPOCHS), *ways)


def seed(recipe: Recipe) -> Iterator[Found]:
    """NumPy takes seeds of 32 bits."""
    if recipe.trainer.seed >= 1 << 32:
        path = "trainer.seed"
        message = f"seeds go up to {(1 << 32) - 1}"
        yield found(error("seed", message, recipe, path), [{path: (1 << 32) - 1}])


def moving_average(recipe: Recipe) -> Iterator[Found]:
    """The average of the weights moves, but more slowly than the weights."""
    decay = recipe.trainer.ema_decay
    if decay == 1.0:
        message = "a decay of 1 keeps the initial weights, which the run would then be judged by"
        yield found(error("average-fixed", message, recipe, _EMA), [{_EMA: 0.9999}], [{_EMA: None}])
    elif decay == 0.0:
        message = "a decay of 0 keeps a copy of the weights that is always the same as they are"
        yield found(warning("average-unused", message, recipe, _EMA), [{_EMA: None}], [{_EMA: 0.999}])


training_rules: tuple[Rule, ...] = (
    length,
    learning_rates,
    large_rate,
    small_rate,
    large_own_rates,
    own_rates,
    schedule_length,
    one_warmup,
    whole_warmup,
    rate_above_zero,
    moments,
    seed,
    moving_average,
)

schedule_rules = (whole_warmup, rate_above_zero)
"""Those of them that take the steps of a run, where its passes over the data decide them."""
