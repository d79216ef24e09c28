"""Rules on the language model, and on which parts of a model exist and are trained."""

import dataclasses
from collections.abc import Iterator
from itertools import islice

from neva_recipes.config import RANDOM, LanguageConfig, LlavaDataConfig, Recipe
from neva_recipes.families import language_family
from neva_recipes.plan.checks._rules import Found, Rule, Way, around, found, multiples, of_new
from neva_recipes.plan.cost.parameters import is_small, padding_parameters, total_parameters
from neva_recipes.plan.findings import error, warning
from neva_recipes.plan.huggingface.exportable import DEEP_PROJECTOR, has_deep_projector

__all__ = ["model_rules"]

_UNUSED_SHARE = 0.03
"""A model gets a warning if padding the vocabulary adds more than this share, unless it is small. A small model with a
small tokenizer always has a large share of padding: a few kilobytes, and a round number of rows is faster. Published
models have less than 1 %."""

_KERNEL = 8
"""Numbers of a head that kernels process at a time; widths of a head that are offered are multiples of it."""

_TRIES = 64
"""Numbers of heads looked at on either side for one that divides the residual stream into such widths."""

_HIDDEN = "model.language.hidden_size"
_HEADS = "model.language.num_attention_heads"
_GROUPS = "model.language.num_query_groups"
_HEAD_SIZE = "model.language.kv_channels"
_LONGEST_TRAINED = "model.language.max_position_embeddings"
_FREEZE = "model.language.freeze"
_VISION = "model.vision"
_PROJECTOR = "model.projector"
_PART_NAMES = {"language": "the language model", "vision": "the vision tower", "projector": "the projector"}
_SOURCES = {
    "language": "RUN_OR_DIRECTORY",
    "vision": "DIRECTORY",
    "projector": "RUN (a run of stage 1, such as llava.pretrain)",
}
"""What a user can name as the weights of each part."""


def hidden_heads(recipe: Recipe) -> Iterator[Found]:
    """The residual stream divides over the heads, unless the width of a head is given."""
    language = recipe.model.language
    hidden, heads = language.hidden_size, language.num_attention_heads
    if language.kv_channels is None and hidden % heads:
        numbers = around(_HEADS, heads, highest=hidden)
        yield found(
            error("hidden-heads", f"{hidden} is not a multiple of {heads} heads", recipe, _HIDDEN, _HEADS),
            *([way for way in islice(ways, _TRIES) if hidden % (_KERNEL * way[_HEADS]) == 0] for ways in numbers),
            *multiples(_HIDDEN, hidden, _KERNEL * heads),
            [{_HEAD_SIZE: max(hidden // heads // _KERNEL, 1) * _KERNEL}],
        )


def query_groups(recipe: Recipe) -> Iterator[Found]:
    """Every key/value head serves the same number of query heads."""
    heads, groups = recipe.model.language.num_attention_heads, recipe.model.language.num_query_groups
    if heads % groups:
        yield found(
            error("query-groups", f"{heads} heads are not a multiple of {groups} groups", recipe, _HEADS, _GROUPS),
            *around(_GROUPS, groups, highest=heads),
        )


def head_size(recipe: Recipe) -> Iterator[Found]:
    """Rotary positions turn the numbers of a head in pairs; kernels process eight numbers at a time."""
    language = recipe.model.language
    if language.kv_channels is None and language.hidden_size % language.num_attention_heads:
        return  # `hidden-heads` reports it
    size = language.head_size
    paths = (_HIDDEN, _HEADS) if language.kv_channels is None else (_HEAD_SIZE,)
    hidden, heads = language.hidden_size, language.num_attention_heads
    ways: tuple[Way, ...] = multiples(_HEAD_SIZE, size, _KERNEL) if size <= 256 else ([{_HEAD_SIZE: 256}],)
    if language.kv_channels is not None and hidden % (_KERNEL * heads) == 0:
        ways = ([{_HEAD_SIZE: None}], *ways)
    if size % 2 and language_family(language).positions == "rotary":
        message = f"a head of {size} numbers cannot take rotary positions, which turn pairs"
        yield found(error("head-size-odd", message, recipe, *paths), *ways)
    elif (size % _KERNEL or size > 256) and recipe.trainer.accelerator != "cpu":
        message = f"fused attention on GPUs takes heads of a multiple of 8 up to 256, {size} falls back to a slow one"
        yield found(warning("head-size", message, recipe, *paths), *ways)


def learned_positions(recipe: Recipe) -> Iterator[Found]:
    """Fields of rotary positions are left alone where the family learns an embedding of each position."""
    language = recipe.model.language
    if language_family(language).positions == "rotary":
        return
    for field in dataclasses.fields(LanguageConfig):
        if field.name.startswith(("rope", "rotary")) and getattr(language, field.name) != field.default:
            path = f"model.language.{field.name}"
            message = f"positions of family={language.family} are learned, so nothing is rotated"
            yield found(error("learned-positions", message, recipe, path), [{path: field.default}])


def heads_of_family(recipe: Recipe) -> Iterator[Found]:
    """Heads are as the family's config.json can say them; otherwise no directory could hold the model."""
    language = recipe.model.language
    said, heads = language_family(language).export.fields.values(), language.num_attention_heads
    if "num_query_groups" not in said and language.num_query_groups != heads:
        message = f"every query head of family={language.family} has a key/value head of its own"
        yield found(error("family-heads", message, recipe, _HEADS, _GROUPS), [{_GROUPS: heads}])
    if "kv_channels" not in said and language.head_size * heads != language.hidden_size:
        if language.kv_channels is None:
            return  # `hidden-heads` reports it
        message = f"heads of family={language.family} are hidden_size / num_attention_heads wide"
        yield found(error("family-heads", message, recipe, _HIDDEN, _HEADS, _HEAD_SIZE), [{_HEAD_SIZE: None}])


def sliding_window(recipe: Recipe) -> Iterator[Found]:
    """Some families have a window."""
    language, path = recipe.model.language, "model.language.sliding_window"
    if language.sliding_window is not None and not language_family(language).has_window:
        message = f"a token of the family {language.family} sees all tokens before it, without a window"
        yield found(error("sliding-window", message, recipe, path, "model.language.family"), [{path: None}])


def sequence_positions(recipe: Recipe) -> Iterator[Found]:
    """No sequence is longer than the positions that were trained."""
    length, longest = recipe.data.sequence_length, recipe.model.language.longest_sequence
    if length > longest:
        yield found(
            error(
                "sequence-positions",
                f"sequences of {length} are longer than the {longest} positions the language model was trained for",
                recipe,
                "data.sequence_length",
                _LONGEST_TRAINED,
            ),
            [{"data.sequence_length": longest}],
            *of_new(recipe.model.language, [{_LONGEST_TRAINED: length}]),
        )


def vision_and_projector(recipe: Recipe) -> Iterator[Found]:
    """A vision tower and a projector go together."""
    there, missing = (_VISION, _PROJECTOR) if recipe.model.projector is None else (_PROJECTOR, _VISION)
    if (recipe.model.vision is None) != (recipe.model.projector is None):
        message = f"vision and projector go together: {there} is set, {missing} is none"
        advice = "set both, or neither for a text-only model"
        # Setting both to None leads to another error if the data has images.
        neither = [] if isinstance(recipe.data, LlavaDataConfig) else [{there: None}]
        yield found(error("vision-and-projector", message, recipe, missing, advice=advice), neither)


def exportable(recipe: Recipe) -> Iterator[Found]:
    """Transformers has a model that does what this one does."""
    if has_deep_projector(recipe.model.projector):
        path = f"{_PROJECTOR}.mm_projector_type"
        yield found(warning("not-exportable", DEEP_PROJECTOR, recipe, path), [{path: "mlp2x_gelu"}, {path: "linear"}])


def image_marks(recipe: Recipe) -> Iterator[Found]:
    """Tokens around images need images."""
    if recipe.model.use_im_start_end and recipe.model.vision is None:
        path = "model.use_im_start_end"
        message = "a model without a vision tower has no images to mark"
        yield found(error("image-marks", message, recipe, path), [{path: False}])


def something_trained(recipe: Recipe) -> Iterator[Found]:
    """At least one part of the model is trained."""
    model = recipe.model
    parts = {_FREEZE: model.language, f"{_VISION}.freeze": model.vision, f"{_PROJECTOR}.freeze": model.projector}
    frozen = [path for path, part in parts.items() if part is not None]
    if all(part is None or not part.trains for part in parts.values()):
        yield found(
            error("all-frozen", "every part of the model is frozen: nothing is trained", recipe, *frozen),
            *([{path: False}] for path in reversed(frozen)),
        )


_GOING_ON = frozenset({"gpt.continue_pretrain", "gpt.localize"})
"""Names of the built-in recipes that go on training a model."""


def random_weights(recipe: Recipe) -> Iterator[Found]:
    """Each part starts from pretrained weights, unless the recipe says that random weights are meant.

    Exceptions are text-only models, unless their recipe is the one that goes on training, and a projector that is
    trained before the language model is. A random projector beside trained weights gets the warning even if the recipe
    says so, since size `tiny` sets it by itself, and so do random weights beside adapters.
    """
    model = recipe.model
    if _all_frozen(recipe):
        return
    for name, part in (("language", model.language), ("vision", model.vision), ("projector", model.projector)):
        if part is None or part.source is not None:
            continue
        if name == "projector":
            told_anyway = model.language.trains and _has_trained_neighbour(recipe)
        else:
            told_anyway = part.adapters is not None
        if part.from_pretrained == RANDOM and not told_anyway:
            continue
        is_first = model.vision is None and recipe.name not in _GOING_ON
        if part.trains_weights and (is_first or (name == "projector" and not model.language.trains)):
            continue
        field, freeze = f"model.{name}.from_pretrained", f"model.{name}.freeze"
        otherwise = "leave it" if told_anyway else f"={RANDOM}"
        advice = f"set {field}={_SOURCES[name]}, or {otherwise} if random weights are meant"
        what = _PART_NAMES[name]
        if not part.trains_weights:
            told = ": whatever is trained before it learns nothing useful" if name == "language" else ""
            message = f"{what} keeps random weights{told}"
            fixed_by = freeze if part.adapters is None else f"model.{name}.lora.kind"
            finding = warning("random-and-frozen", message, recipe, field, fixed_by, advice=advice)
            yield found(finding, [{freeze: False}] if name == "language" and part.adapters is None else [])
        else:
            message = f"{what} begins from random weights"
            if name == "projector":
                message += ", and the language model is trained with what it makes of images"
            yield found(warning("random-weights", message, recipe, field, advice=advice))


def _has_trained_neighbour(recipe: Recipe) -> bool:
    return any(part is not None and part.source is not None for part in (recipe.model.language, recipe.model.vision))


def _all_frozen(recipe: Recipe) -> bool:
    parts = (recipe.model.language, recipe.model.vision, recipe.model.projector)
    return all(part is None or not part.trains for part in parts)


def dropout(recipe: Recipe) -> Iterator[Found]:
    """Dropout keeps some values."""
    for path in ("model.language.hidden_dropout", "model.language.attention_dropout"):
        if getattr(recipe.model.language, path.rpartition(".")[2]) == 1.0:
            message = "a probability of 1 drops everything: the layers learn nothing"
            yield found(error("dropout", message, recipe, path), [{path: 0.1}], [{path: 0.0}])


def frozen_dropout(recipe: Recipe) -> Iterator[Found]:
    """Dropout is for layers that learn."""
    language = recipe.model.language
    paths = ("model.language.hidden_dropout", "model.language.attention_dropout")
    used = [path for path in paths if 0.0 < getattr(language, path.rpartition(".")[2]) < 1.0]
    if not language.trains and used:
        message = "dropout in a frozen language model only adds noise to what is trained before it"
        yield found(
            warning("dropout-frozen", message, recipe, *used, _FREEZE), [dict.fromkeys(used, 0.0)], [{_FREEZE: False}]
        )


def vocabulary_padding(recipe: Recipe) -> Iterator[Found]:
    """Rows that only pad the vocabulary are few."""
    language, tensor = recipe.model.language, recipe.parallel.tensor_model_parallel_size
    unused, total = padding_parameters(recipe), total_parameters(recipe)
    if unused > _UNUSED_SHARE * total and not is_small(recipe):
        padding = language.padded_vocab_size(tensor) - language.vocab_size
        path, multiple = "model.language.make_vocab_size_divisible_by", language.make_vocab_size_divisible_by
        message = (
            f"a multiple of {multiple * tensor} adds {padding} rows of padding to a vocabulary of "
            f"{language.vocab_size}: {unused / total:.0%} more weights that nothing uses"
        )
        smaller = ({path: 1 << power} for power in range(multiple.bit_length() - 1, -1, -1))
        yield found(warning("vocabulary-padding", message, recipe, "model.language.vocab_size", path), smaller)


model_rules: tuple[Rule, ...] = (
    vision_and_projector,
    exportable,
    image_marks,
    something_trained,
    hidden_heads,
    query_groups,
    head_size,
    heads_of_family,
    learned_positions,
    sliding_window,
    sequence_positions,
    random_weights,
    dropout,
    frozen_dropout,
    vocabulary_padding,
)
