"""The names of weights: Megatron-Core's and this project's, and those of Hugging Face directories.

A directory names its tensors by the class that saved it, so each part has several spellings. One tensor that every
spelling has tells which one a directory uses.
"""

import re
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from neva_recipes.config import LanguageConfig
from neva_recipes.families.language import LanguageFamily, sizes_of
from neva_recipes.families.tensors import Shape, Weight
from neva_recipes.families.vision import VisionFamily

__all__ = [
    "LLAVA_SPELLING",
    "LanguageSpelling",
    "core_weight",
    "find_language_spelling",
    "find_projector_spelling",
    "find_vision_spelling",
    "is_idle",
    "language_spellings",
    "language_tensors",
    "projector_layers",
    "projector_names",
    "projector_tensors",
    "vision_name",
    "vision_tensors",
]


class LanguageSpelling(NamedTuple):
    """How a directory spells the tensors of a language model.

    Attributes:
        body: Prefix of everything but the output layer.
        head: Prefix of the output layer.
    """

    body: str
    head: str


LLAVA_SPELLING = LanguageSpelling("language_model.model.", "language_model.")
"""That of a saved LlavaForConditionalGeneration, whatever its language model."""


def language_spellings(family: LanguageFamily) -> tuple[LanguageSpelling, ...]:
    """Return the spellings of a family's tensors, that of its class with an output layer first."""
    return (
        LanguageSpelling(family.prefix, ""),  # LlamaForCausalLM, and the original LLaVA
        LLAVA_SPELLING,
        LanguageSpelling("model.language_model.", ""),  # LlavaForConditionalGeneration, in memory
        LanguageSpelling("", ""),  # LlamaModel
    )


_VISION_SPELLINGS = (
    "",  # CLIPVisionModel and SiglipVisionModel of transformers 5, Dinov2Model
    "vision_model.",  # the same of transformers 4, and whole CLIP models
    "vision_tower.",  # LlavaForConditionalGeneration saved by transformers 5, or with a tower of DINOv2
    "vision_tower.vision_model.",  # LlavaForConditionalGeneration saved by transformers 4
    "model.vision_tower.",
    "model.vision_tower.vision_model.",
    "model.vision_tower.vision_tower.vision_model.",  # the original LLaVA, when it trained the tower
)

_PROJECTOR_SPELLINGS = (
    "multi_modal_projector.",  # LlavaForConditionalGeneration
    "model.multi_modal_projector.",
    "model.mm_projector.",  # the original LLaVA
    "mm_projector.",
)


def core_weight(family: LanguageFamily, name: str, spelling: LanguageSpelling) -> tuple[Weight, tuple[str, ...]]:
    """Return one of Core's parameters, and the names of the tensors that make it up.

    Args:
        family: The family of the language model.
        name: Core's name, with layers counted over the whole model.
        spelling: How the directory spells the tensors.
    """
    weight, layer = family.weight(name)
    prefix = spelling.head if weight is family.head else spelling.body
    prefix += "" if layer is None else _layer_prefix(family, layer)
    return weight, tuple(f"{prefix}{tensor}" for tensor in weight.tensors)


def _layer_prefix(family: LanguageFamily, layer: int) -> str:
    return f"{family.layers}{layer}."


def projector_names(spelling: str, number: int, layers: int) -> tuple[str, str]:
    """Return the names of the weight and the bias of one linear layer of a projector.

    Args:
        spelling: Prefix of the projector's tensors.
        number: Which of its linear layers, from 0.
        layers: Number of its linear layers.
    """
    if spelling.endswith("multi_modal_projector."):
        layer = f"linear_{number + 1}."
    else:
        # The original LLaVA numbers the members of a Sequential, including GELUs; a single layer has no number.
        layer = "" if layers == 1 else f"{2 * number}."
    return f"{spelling}{layer}weight", f"{spelling}{layer}bias"


def find_language_spelling(names: Container[str], family: LanguageFamily) -> LanguageSpelling | None:
    """Return the spelling of the language model in a directory; `None` if there is no language model."""
    spellings = language_spellings(family)
    return next((one for one in spellings if f"{one.body}{family.embedding_tensor}" in names), None)


def find_vision_spelling(names: Container[str], families: Iterable[VisionFamily]) -> str | None:
    """Return the prefix of the vision tower in a directory; `None` if there is no tower.

    Args:
        names: The names of its tensors.
        families: Families that the tower may be of.
    """
    anchors = {family.patches for family in families}
    return next((one for one in _VISION_SPELLINGS if any(f"{one}{anchor}" in names for anchor in anchors)), None)


def find_projector_spelling(names: Container[str]) -> str | None:
    """Return the prefix of the projector in a directory; `None` if there is no projector."""
    for spelling in _PROJECTOR_SPELLINGS:
        if any(f"{spelling}{layer}weight" in names for layer in ("linear_1.", "0.", "")):
            return spelling
    return None


def projector_layers(names: Collection[str], spelling: str) -> int:
    """Return the number of linear layers of the projector in a directory."""
    found = sum(projector_names(spelling, number, 9)[0] in names for number in range(9))
    return found or 1


def language_tensors(
    spelling: LanguageSpelling, family: LanguageFamily, language: LanguageConfig
) -> Iterator[tuple[str, Shape]]:
    """Yield the names and shapes of all tensors of a language model, including the output layer.

    Args:
        spelling: How the directory spells them.
        family: The family of the model.
        language: The model.
    """
    sizes = sizes_of(language)
    for weight in family.body:
        yield from _prefixed(spelling.body, weight.shapes(sizes))
    yield from _prefixed(spelling.head, family.head.shapes(sizes))
    layer = {name: shape for weight in family.layer for name, shape in weight.shapes(sizes).items()}
    for number in range(language.num_layers):
        yield from _prefixed(f"{spelling.body}{_layer_prefix(family, number)}", layer)


def vision_tensors(
    spelling: str, family: VisionFamily, tower: Mapping[str, Any], names: Container[str]
) -> Iterator[tuple[str, Shape]]:
    """Yield the names and shapes of all tensors of a tower.

    Args:
        spelling: Their prefix.
        family: The family of the tower.
        tower: Its sizes, by the keys of `fields` of the family.
        names: The names of the directory's tensors.
    """
    yield from _prefixed(spelling, family.shapes({**family.before, **family.after}, tower))
    layer = family.shapes(family.layer, tower)
    for number in range(tower["num_hidden_layers"]):
        for name, shape in layer.items():
            yield vision_name(f"{family.layers}.{number}.{name}", spelling, family, names), shape


def vision_name(name: str, spelling: str, family: VisionFamily, names: Container[str]) -> str:
    """Return how a directory names a tensor of a tower.

    Args:
        name: Its name as published, or in transformers' class.
        spelling: Prefix of the tower's tensors.
        family: The family of the tower.
        names: The names of the directory's tensors.
    """
    published = f"{spelling}{family.published_name(name)}"
    module = f"{spelling}{family.module_name(name)}"
    return module if module in names else published


def _prefixed(prefix: str, shapes: Mapping[str, Shape]) -> Iterator[tuple[str, Shape]]:
    return ((f"{prefix}{name}", shape) for name, shape in shapes.items())


def projector_tensors(spelling: str, layers: int, features: int, hidden: int) -> Iterator[tuple[str, Shape]]:
    """Yield the names and shapes of all tensors of a projector.

    Args:
        spelling: Their prefix.
        layers: Number of its linear layers.
        features: Width of its input.
        hidden: Width of its output.
    """
    for number in range(layers):
        weight, bias = projector_names(spelling, number, layers)
        yield from ((weight, (hidden, hidden if number else features)), (bias, (hidden,)))


_IDLE = re.compile(
    # Computed when the model is built, but formerly saved with the weights.
    r"(.*\.)?rotary_emb\.inv_freq|(.*\.)?embeddings\.position_ids|(.*\.)?attn\.(masked_)?bias"
    # Parts with which CLIP and SigLIP compare images and texts; patch features do not need them.
    r"|text_model\..*|(text|visual)_projection\.weight|logit_(scale|bias)"
    r"|(.*\.)?vision_model\.head\..*|head\.(probe|attention\..*|layernorm\..*|mlp\..*)"
    r"|(.*\.)?vision_tower\.head\..*"
)


def is_idle(name: str) -> bool:
    """Return whether a tensor is not used here."""
    return _IDLE.fullmatch(name) is not None
