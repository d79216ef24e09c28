"""Rules on rotary positions that are stretched."""

from collections.abc import Iterator

from neva_recipes.config import LlavaDataConfig, Recipe
from neva_recipes.families import language_family
from neva_recipes.families.rope import KINDS, angles_change_beyond, rope_faults
from neva_recipes.plan.checks._rules import Found, Rule, found
from neva_recipes.plan.findings import error, warning

__all__ = ["rope_rules"]

_ROPE = "model.language.rope"
_ADVICE = "take it from rope_parameters in the config.json of the model"
_SHORT = "model.language.rope_scaling_factor"


def rope_parameters(recipe: Recipe) -> Iterator[Found]:
    """A kind of rotary positions has the parameters that it needs, and no others."""
    language = recipe.model.language
    if language.rope is None:
        return
    if language.rope_scaling_factor is not None:
        message = f"positions are stretched twice, by {_SHORT} and by {_ROPE}"
        yield found(
            error("rope-parameters", message, recipe, _SHORT, f"{_ROPE}.kind"), [{_SHORT: None}], [{_ROPE: None}]
        )
    for name, message in rope_faults(language, language_family(language).rope):
        path = f"{_ROPE}.{name}"
        is_read = name in ("kind", *KINDS[language.rope.kind].parameters)
        way = [{path: 1.0}] if name == "partial_rotary_factor" else [] if is_read else [{path: None}]
        yield found(error("rope-parameters", message, recipe, path, advice=_ADVICE), way)


def rope_scaling(recipe: Recipe) -> Iterator[Found]:
    """Frequency scaling stretches positions.

    Those of `dynamic` are stretched by any factor; that of `longrope` is only about cosine and sine.
    """
    language = recipe.model.language
    factors = [(_SHORT, language.rope_scaling_factor, {_SHORT: None})]
    if language.rope is not None and language.rope.kind in ("linear", "llama3", "yarn"):
        factors.append((f"{_ROPE}.factor", language.rope.factor, {_ROPE: None}))
    for path, factor, remedy in factors:
        if factor is not None and factor <= 1:
            what = "does nothing" if factor == 1 else "squeezes positions together instead of stretching them"
            yield found(warning("rope-scaling", f"a factor of {factor:g} {what}", recipe, path), [remedy])


def rope_length(recipe: Recipe) -> Iterator[Found]:
    """Angles that depend on the length of a sequence are those of its own length."""
    rope, steady = recipe.model.language.rope, angles_change_beyond(recipe.model.language)
    length, size = recipe.data.sequence_length, recipe.data.micro_batch_size
    if not isinstance(recipe.data, LlavaDataConfig):
        return  # the windows of a text are of one length
    if rope is not None and steady is not None and length > steady and size > 1:
        batch = "data.micro_batch_size"
        message = (
            f"beyond {steady} tokens the angles of {rope.kind} depend on the length, which is that of the longest of "
            f"the {size} samples of a micro batch"
        )
        finding = warning("rope-length", message, recipe, f"{_ROPE}.kind", batch)
        yield found(finding, [{batch: 1}], [{"data.sequence_length": steady}])


rope_rules: tuple[Rule, ...] = (rope_parameters, rope_scaling, rope_length)
