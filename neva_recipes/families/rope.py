"""Rotary positions: what a config.json says of them, and what of it Megatron-Core can do."""

from collections.abc import Iterator, Mapping
from typing import Any

from neva_recipes.config import LanguageConfig, PlainTable
from neva_recipes.families.keys import Keys, Read, read_values
from neva_recipes.families.values import NUMBER, WORD, bare

__all__ = ["read_rope", "rope_parameters", "rope_problems"]

_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""The parts of Llama 3's scaling that are fixed in Megatron-Core."""

_KEYS = Keys(
    read={
        **{key: Read(NUMBER) for key in ("rope_theta", "factor", "partial_rotary_factor", *_LLAMA3)},
        **{key: Read(WORD) for key in ("rope_type", "type")},
    }
)
"""What stands under `rope_parameters` or, formerly, `rope_scaling`."""


def _key(fields: Mapping[str, object]) -> str:
    return "rope_scaling" if fields.get("rope_scaling") else "rope_parameters"


def read_rope(text: Mapping[str, Any], place: str = "") -> PlainTable:
    """Return the rotary positions of a language model, with defaults filled in.

    Args:
        text: Its configuration, as `read_values` returns it.
        place: Prefix of its keys in messages.

    Raises:
        ValueError: A value has the wrong type or is out of range; the message names it.
    """
    key = _key(text)
    rope = read_values(text[key] or {}, _KEYS, f"{place}{key}.")
    return rope | {
        "rope_theta": rope["rope_theta"] or text["rope_theta"] or 10000.0,
        "rope_type": rope["rope_type"] or rope["type"] or "default",
        "original_max_position_embeddings": rope["original_max_position_embeddings"] or text["max_position_embeddings"],
    }


def rope_problems(fields: Mapping[str, Any], rope: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """Yield what is not supported in the rotary positions of a language model.

    Args:
        fields: Its configuration.
        rope: Its rotary positions, as `read_rope` returns them.
        place: Prefix of its keys in messages.
    """
    key, kind = _key(fields), rope["rope_type"]
    if kind not in ("default", "llama3"):
        yield f"{place}{key}: rope_type is {bare(kind)}, only default and llama3 are supported"
        return
    if rope["partial_rotary_factor"] not in (None, 1):
        yield f"{place}{key}: partial_rotary_factor is {rope['partial_rotary_factor']}, only 1.0 is supported"
    for name, value in (fields.get(key) or {}).items():
        if name not in _KEYS.read and value is not None:
            yield f"{place}{key}: {bare(name)} is {bare(value)}, which is not supported"
    if kind == "llama3" and rope["factor"] is None:
        yield f"{place}{key}: factor is missing, which llama3 needs"
    for name, supported in _LLAMA3.items():
        if kind == "llama3" and rope[name] != supported:
            yield f"{place}{key}: rope {name} is {rope[name]}, only {supported:g} is supported"


def rope_parameters(language: LanguageConfig) -> PlainTable:
    """Return the `rope_parameters` of a language model for a config.json."""
    rope: PlainTable = {"rope_type": "default", "rope_theta": language.rotary_base}
    if language.rope_scaling_factor is not None:
        rope |= {"rope_type": "llama3", "factor": language.rope_scaling_factor, **_LLAMA3}
    return rope
