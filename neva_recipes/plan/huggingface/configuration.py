"""The config.json of a Hugging Face directory: what it says about each part, and what of it is not supported."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from neva_recipes.config import CheckpointError, LanguageConfig, PlainTable
from neva_recipes.families import LanguageFamily, VisionFamily, families, language_families, vision_families
from neva_recipes.families.keys import Keys, problems_of, read_values
from neva_recipes.families.llama import LLAMA
from neva_recipes.families.towers.clip import CLIP
from neva_recipes.families.values import bare
from neva_recipes.plan.huggingface.json_files import read_object
from neva_recipes.plan.huggingface.llava_keys import LLAVA, ORIGINAL_LLAVA, WHOLE_CLIP

__all__ = ["Configuration", "read_configuration"]

_NAMES = Keys(read={})
"""The keys that tell the kind of a configuration, which every configuration may have."""

_LLAVA_TOWER = {
    "model_type": CLIP.model_type,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
"""The tower of a LlavaConfig without a vision_config."""


@dataclass(frozen=True)
class Configuration:
    """What a directory says about its model.

    Attributes:
        architecture: The class that saved it, for messages.
        family: Family of the language model; `None` without one.
        text: Fields of the language model, with defaults filled in and the rotary positions under `rope`.
        language: The language model as a recipe has it.
        tower_family: Family of the vision tower; `None` without one.
        vision: Fields of the vision tower, with defaults filled in.
        image_token_index: Row of the vocabulary that only marks images, if there is one.
        vision_feature_layer: Hidden state that the projector reads, if the directory says.
        skips_first: Whether the projector skips the first token of that state, if the directory says.
        is_original: Whether the layout is that of the original LLaVA.
        projector_hidden_act: Activation between the projector's layers, in the layout of transformers.
        projector_type: The type of the projector, in the layout of the original LLaVA.
        projector_width: Width of the features that the projector reads, if the directory says.
        image_marks: Whether there are tokens around an image, if the directory says.
        tower_source: The vision tower that the original LLaVA started from, in its layout: a folder or a name.
        pads_images: Whether images are padded to a square, if the directory says so here.
        problems: What is not supported, each with the part that it concerns, or `None` if it concerns all parts.
    """

    architecture: str
    family: LanguageFamily | None = None
    text: Mapping[str, Any] | None = None
    language: LanguageConfig | None = None
    tower_family: VisionFamily | None = None
    vision: Mapping[str, Any] | None = None
    image_token_index: int | None = None
    vision_feature_layer: int | None = None
    skips_first: bool | None = None
    is_original: bool = False
    projector_hidden_act: str = "gelu"
    projector_type: str | None = None
    projector_width: int | None = None
    image_marks: bool | None = None
    tower_source: str | None = None
    pads_images: bool | None = None
    problems: tuple[tuple[str | None, str], ...] = ()

    def problems_with(self, part: str) -> list[str]:
        """Return what is not supported of one part."""
        return [problem for concerned, problem in self.problems if concerned in (None, part)]


def read_configuration(directory: Path) -> Configuration:
    """Read a directory's config.json.

    Raises:
        CheckpointError: The file is missing or broken, a value has the wrong type or is out of range, or the family of
            the model is not supported.
    """
    path = directory / "config.json"
    fields = read_object(path, "a model's configuration")
    try:
        return _parse(fields)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _parse(fields: dict[str, object]) -> Configuration:
    named = read_values(fields, _NAMES)
    kind = named["model_type"]
    architecture = bare((named["architectures"] or [kind or "unknown"])[0])
    if kind == "llava" and "text_config" in fields:
        return _parse_llava(architecture, fields)
    if kind in ("llava", "llava_llama"):
        return _parse_original_llava(architecture, fields)
    for family in families():
        if isinstance(family, VisionFamily) and kind is not None and kind == family.whole_model_type:
            return _parse_whole_clip(family, architecture, fields)
        if isinstance(family, VisionFamily) and kind in family.refused:
            raise ValueError(f"model_type is {bare(kind)}: {family.refused[kind]}")
        if kind != family.model_type:
            continue
        if isinstance(family, LanguageFamily):
            problems = _about("language", family.problems(fields))
            return Configuration(architecture, **_language(family, fields), problems=problems)
        problems = _about("vision", problems_of(fields, family.keys))
        return Configuration(architecture, tower_family=family, vision=family.read(fields), problems=problems)
    expected = [family.model_type for family in language_families()] + ["llava"]
    *others, last = [*expected, *(tower.whole_model_type or tower.model_type for tower in vision_families())]
    raise ValueError(f"model_type is {bare(kind)}: expected {', '.join(others)} or {last}")


def _language(family: LanguageFamily, fields: Mapping[str, object], place: str = "") -> PlainTable:
    """Return the attributes of a configuration with a language model.

    Raises:
        ValueError: A value is of the wrong type or out of range, or no recipe can hold the model.
    """
    text = family.read(fields, place)
    return {"family": family, "text": text, "language": family.config(text)}


def _parse_whole_clip(tower: VisionFamily, architecture: str, fields: dict[str, object]) -> Configuration:
    whole, keys = read_values(fields, WHOLE_CLIP), tower.keys
    whole_keys = dataclasses.replace(WHOLE_CLIP, architectures=keys.architectures)
    vision, second = whole["vision_config"], whole["vision_config_dict"]
    if tower.has_config_dict and second is not None:
        vision = {**vision, **read_values(second, keys, "vision_config_dict."), **second}
    problems = (
        *_about("vision", problems_of(fields, whole_keys)),
        *_about("vision", problems_of(vision, keys, "vision_config.")),
    )
    read = tower.read(vision, "vision_config.")
    return Configuration(architecture, tower_family=tower, vision=read, problems=problems)


def _parse_llava(architecture: str, fields: dict[str, object]) -> Configuration:
    whole = read_values(fields, LLAVA)
    text, vision = dict(whole["text_config"] or {}), whole["vision_config"] or _LLAVA_TOWER
    kind = read_values(text, _NAMES, "text_config.")["model_type"] or LLAMA.model_type
    family = _family_of(language_families(), kind, "language model")
    kind = read_values(vision, _NAMES, "vision_config.")["model_type"] or CLIP.model_type
    tower = _family_of(vision_families(), kind, "vision tower")
    # Either of the two ties the embeddings; transformers passes that of the language model up.
    text["tie_word_embeddings"] = bool(
        whole["tie_word_embeddings"] or read_values(text, family.keys, "text_config.")["tie_word_embeddings"]
    )
    activation, strategy = whole["projector_hidden_act"], whole["vision_feature_select_strategy"]
    old_name = "image_token_index" in fields or whole["image_token_id"] is None
    own = {key: value for key, value in fields.items() if key != "multimodal_projector_bias"}
    problems = [
        *_about(None, problems_of(own, LLAVA)),
        *_about("language", family.problems(text, place="text_config.")),
        *_about("vision", problems_of(vision, tower.keys, "vision_config.")),
    ]
    for key, value, known in (
        ("multimodal_projector_bias", fields.get("multimodal_projector_bias", True), (True,)),
        ("projector_hidden_act", activation, ("gelu", "linear")),
        ("vision_feature_select_strategy", strategy, ("default", "full")),
    ):
        if value not in known:
            problems.append(("projector", f"{key} is {bare(value)}, only {' and '.join(map(str, known))} is supported"))
    return Configuration(
        architecture,
        **_language(family, text, "text_config."),
        tower_family=tower,
        vision=tower.read(vision, "vision_config."),
        image_token_index=whole["image_token_index"] if old_name else whole["image_token_id"],
        vision_feature_layer=_layer("vision_feature_layer", whole["vision_feature_layer"]),
        skips_first=strategy == "default",
        projector_hidden_act=activation,
        problems=tuple(problems),
    )


_Family = TypeVar("_Family", LanguageFamily, VisionFamily)


def _family_of(families: Iterable[_Family], kind: str, what: str) -> _Family:
    """Return the family of a part of a LLaVA, by its `model_type`."""
    known = []
    for family in families:
        if kind == family.model_type:
            return family
        if isinstance(family, VisionFamily) and kind in family.refused:
            raise ValueError(f"its {what} is a {bare(kind)}: {family.refused[kind]}")
        known.append(family.model_type)
    raise ValueError(f"its {what} is a {bare(kind)}: expected {' or '.join(known)}")


def _parse_original_llava(architecture: str, fields: dict[str, object]) -> Configuration:
    # The original LLaVA puts its own fields among those of Llama.
    whole = read_values(fields, ORIGINAL_LLAVA)
    return Configuration(
        architecture,
        **_language(LLAMA, fields),
        vision_feature_layer=_layer("mm_vision_select_layer", whole["mm_vision_select_layer"]),
        skips_first=whole["mm_vision_select_feature"] != "cls_patch",
        is_original=True,
        projector_type=whole["mm_projector_type"],
        projector_width=whole["mm_hidden_size"],
        image_marks=bool(whole["mm_use_im_start_end"]),
        tower_source=whole["mm_vision_tower"],
        pads_images=whole["image_aspect_ratio"] == "pad",
        problems=_about(None, LLAMA.problems(fields, ORIGINAL_LLAVA)),
    )


def _layer(key: str, layer: Any) -> int | None:
    layers: list[int | None] = layer if isinstance(layer, list) else [layer]
    if len(layers) != 1:
        raise ValueError(f"{key} is {bare(layer)}: several vision feature layers are joined, which is not supported")
    return layers[0]


def _about(part: str | None, problems: Iterator[str]) -> tuple[tuple[str | None, str], ...]:
    """Return problems with the part that they concern."""
    return tuple(
        # Which parts are quantized is only known to the library that quantized them, so this concerns all parts.
        (None if "quantization_config" in problem else part, problem)
        for problem in problems
    )
