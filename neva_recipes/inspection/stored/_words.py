"""The sizes of a part of a model in words."""

from collections.abc import Mapping
from typing import Any

from neva_recipes.config import LanguageConfig

__all__ = ["language_shape", "vision_shape"]


def language_shape(language: LanguageConfig) -> str:
    """Return the sizes of a language model."""
    groups, heads = language.num_query_groups, language.num_attention_heads
    shared = f", {groups} for keys and values" if groups != heads else ""
    rope = "" if language.rope is None or language.rope.kind == "default" else f", rope {language.rope.kind}"
    tied = ", embeddings and output layer shared" if language.share_embeddings_and_output_weights else ""
    return (
        f"{language.num_layers} layers of width {language.hidden_size}, {heads} heads{shared}, feed-forward "
        f"{language.ffn_hidden_size}, {language.max_position_embeddings:,} positions{rope}{tied}"
    )


def vision_shape(tower: Mapping[str, Any], image_size: int | None = None) -> str:
    """Return the sizes of a vision tower.

    Args:
        tower: What is known of it, by the keys of a config.json; its heads may be missing.
        image_size: Side of its images, in pixels; `None` if it is that of `tower`, the one of the position embeddings.
    """
    heads = f", {tower['num_attention_heads']} heads" if "num_attention_heads" in tower else ""
    positions = tower["image_size"]
    others = "" if image_size in (None, positions) else f", positions of images of {positions} pixels"
    return (
        f"{tower['num_hidden_layers']} layers of width {tower['hidden_size']}{heads}, images of "
        f"{image_size or positions} pixels in patches of {tower['patch_size']}{others}"
    )
