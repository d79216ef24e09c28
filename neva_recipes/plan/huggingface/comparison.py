"""A Hugging Face directory compared with the model of a recipe."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from neva_recipes.config import LanguageConfig, ModelConfig, VisionConfig
from neva_recipes.families import LanguageFamily, VisionFamily, vision_family
from neva_recipes.families.rope import depends_on_longest, resolved_rope, rope_differences
from neva_recipes.families.values import bare
from neva_recipes.plan.huggingface.configuration import Configuration
from neva_recipes.plan.huggingface.directory import Directory

__all__ = ["Mismatch", "compare_part"]


@dataclass(frozen=True)
class Mismatch:
    """One difference between a directory and the recipe.

    Attributes:
        message: The directory's own name of the value, and the value there.
        field: Dotted path of the recipe's field; `None` if no field could be set to it.
        value: The value that the field would need.
    """

    message: str
    field: str | None = None
    value: Any = None


def compare_part(directory: Directory, model: ModelConfig, part: str) -> Iterator[Mismatch]:
    """Yield how a directory's language model, vision tower or projector differs from the recipe's.

    The size of the vocabulary is left to `neva_recipes.plan.huggingface.vocabulary`.
    """
    configuration = directory.configuration
    if configuration is not None and configuration.is_original and part == "vision" and not directory.tensors:
        return  # whether the original LLaVA saved a tower with its model only its tensors tell
    if configuration is not None:
        if part == "language" and configuration.text is None:
            yield Mismatch(f"holds a {configuration.architecture}, no language model")
            return
        if part == "vision" and directory.tower is None:
            yield Mismatch(f"holds a {configuration.architecture}, no vision tower")
            return
        problems = configuration.problems_with(part)
        yield from map(Mismatch, problems)
        if problems:
            return
        yield from _compare_configuration(configuration, directory, model, part)
    if directory.tensors and (part != "projector" or model.projector is not None):
        yield from _compare_tensors(directory, model, part)


def _compare_configuration(
    configuration: Configuration, directory: Directory, model: ModelConfig, part: str
) -> Iterator[Mismatch]:
    if part == "language":
        there, family = configuration.language, configuration.family
        assert there is not None and family is not None
        # transformers does not tie weights that differ, even if the configuration says so.
        untied = there.share_embeddings_and_output_weights and directory.has_own_output
        if untied:
            there = dataclasses.replace(there, share_embeddings_and_output_weights=False)
        yield from _compare_language(family, there, model.language, untied=untied)
    elif part == "vision" and model.vision is not None:
        assert directory.tower is not None and directory.tower_family is not None
        yield from _compare_vision(directory.tower_family, directory.tower, model.vision)
    elif part == "projector" and model.vision is not None and model.projector is not None:
        yield from _compare_selection(configuration, model.vision)
        if configuration.is_original:
            kind = configuration.projector_type or "linear"
            held = model.projector.mm_projector_type
            yield from _differing("model.projector", [("mm_projector_type", kind, "mm_projector_type", held)])
    if part in ("language", "projector") and model.vision is not None and configuration.image_marks:
        yield from _differing("model", [("mm_use_im_start_end", True, "use_im_start_end", model.use_im_start_end)])


def _compare_tensors(directory: Directory, model: ModelConfig, part: str) -> Iterator[Mismatch]:
    missing = directory.missing(part)
    if missing is not None:
        yield Mismatch(missing)
    elif part == "projector" and model.projector is not None:
        layers, held = directory.projector_layers, model.projector
        kind = {1: "linear"}.get(layers, f"mlp{layers}x_gelu")
        if layers != held.num_layers:
            count = "two layers with gelu between them" if layers == 2 else f"{layers} layers"
            yield Mismatch(f"its projector has {count}", "model.projector.mm_projector_type", kind)
        features, hidden = directory.projector_widths
        if model.vision is not None and features != model.vision.hidden_size:
            yield Mismatch(f"its projector reads features of width {features}", "model.vision.hidden_size", features)
        if hidden != model.language.hidden_size:
            yield Mismatch(f"its projector makes rows of width {hidden}", "model.language.hidden_size", hidden)


def _compare_language(
    family: LanguageFamily, there: LanguageConfig, language: LanguageConfig, *, untied: bool
) -> Iterator[Mismatch]:
    if language.family != family.name:
        yield Mismatch(f"model_type is {family.model_type}", "model.language.family", family.name)
        return
    said = {ours: theirs for theirs, ours in family.fields.items()}
    # A family whose config.json does not say them has these all the same.
    for ours, what in (("num_query_groups", "the number of key/value heads"), ("kv_channels", "the width of a head")):
        said.setdefault(ours, what)
    held = {ours: (getattr(there, ours), getattr(language, ours)) for ours in said}
    held["kv_channels"] = there.head_size, language.head_size
    pairs = [
        *((theirs, held[ours][0], ours, held[ours][1]) for ours, theirs in said.items()),
        ("rope_theta", there.rotary_base, "rotary_base", language.rotary_base),
        (
            f"tie_word_embeddings is True, but {family.head_tensor} is not {family.embedding_tensor}, so that it"
            if untied
            else "tie_word_embeddings",
            there.share_embeddings_and_output_weights,
            "share_embeddings_and_output_weights",
            language.share_embeddings_and_output_weights,
        ),
    ]
    longest, positions = there.max_position_embeddings, language.max_position_embeddings
    # A model may use fewer positions than were trained, but a table of them has as many rows as it has.
    if positions > longest or family.positions == "learned" or depends_on_longest(there):
        pairs.append((family.longest, longest, "max_position_embeddings", positions))
    yield from _differing("model.language", pairs)
    yield from _compare_rope(there, language)


def _compare_rope(there: LanguageConfig, language: LanguageConfig) -> Iterator[Mismatch]:
    """Yield how rotary positions differ, in the words in which the directory would be written as a recipe."""
    names = {"rope": "rope_type", "rope.kind": "rope_type", "rope_scaling_factor": "rope factor"}
    for path, value, _ in rope_differences(there, language):
        said = resolved_rope(there).kind if path == "rope" else bare(value)
        yield Mismatch(f"{names.get(path, path.replace('.', ' '))} is {said}", f"model.language.{path}", value)


def _compare_vision(family: VisionFamily, tower: Mapping[str, object], vision: VisionConfig) -> Iterator[Mismatch]:
    if family.name != vision.vision_model_type:
        yield Mismatch(f"model_type is {family.model_type}", "model.vision.vision_model_type", family.name)
    ours = dict(family.fields)
    if family.interpolates:
        ours["image_size"] = "position_image_size"
    yield from _differing(
        "model.vision",
        # A tower without its own configuration does not tell everything.
        [
            (family.said(theirs), tower[theirs], ours[theirs], held)
            for theirs, held in family.sizes(vision).items()
            if theirs in tower
        ],
    )


def _compare_selection(configuration: Configuration, vision: VisionConfig) -> Iterator[Mismatch]:
    """Yield how the features that the projector reads differ from those that the recipe selects."""
    layer, selected = configuration.vision_feature_layer, vision.vision_select_layer
    # A hidden state can be counted from either end.
    states = vision.num_layers + 1
    if layer is not None and layer % states != selected % states:
        yield from _differing("model.vision", [("vision_feature_layer", layer, "vision_select_layer", selected)])
    skips, family = configuration.skips_first, vision_family(vision)
    # The original LLaVA only supports towers with a class token.
    if skips is None or (configuration.is_original and not family.has_class_token):
        return
    if skips != family.skips_first(vision):
        there = (
            f"mm_vision_select_feature is {'patch' if skips else 'cls_patch'}"
            if configuration.is_original
            else f"vision_feature_select_strategy is {'default' if skips else 'full'}"
        )
        yield Mismatch(there, "model.vision.vision_select_feature", _feature(skips, family))


def _feature(skips_first: bool, family: VisionFamily) -> str:
    if family.has_class_token:
        return "patch" if skips_first else "cls_patch"
    return "skip_first" if skips_first else "patch"


def _differing(group: str, pairs: list[tuple[str, object, str, object]]) -> Iterator[Mismatch]:
    for theirs, value, ours, held in pairs:
        if value != held:
            yield Mismatch(f"{theirs} is {value}", f"{group}.{ours}", value)
