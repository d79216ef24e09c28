"""Rotary positions: what a config.json says of them, as fields of a recipe, and back."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from neva_recipes.config import LanguageConfig, PlainTable, RopeConfig
from neva_recipes.families.keys import Keys, Read, read_values
from neva_recipes.families.values import COUNT, FLAG, NUMBER, NUMBERS, SHARE, WORD, ZERO_OR_MORE, bare, shown

__all__ = [
    "ANY_ROPE",
    "KINDS",
    "RopeOfFamily",
    "angles_change_beyond",
    "attention_factor",
    "cache_lasts_until",
    "depends_on_longest",
    "read_rope",
    "resolved_rope",
    "rope_config_json",
    "rope_differences",
    "rope_faults",
    "rope_fields",
    "rope_parameters",
    "rope_problems",
    "rotated_size",
]


class _Kind(NamedTuple):
    """A kind of rotary positions.

    Attributes:
        needs: Parameters that it must have.
        takes: Parameters that it may have.
        stretches: Whether there is a length before the stretching, which may stand beside them or outside.
    """

    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    stretches: bool = False

    @property
    def parameters(self) -> tuple[str, ...]:
        """All that it reads, besides the share of a head, which every kind reads."""
        return (*self.needs, *self.takes, *((_ORIGINAL,) if self.stretches else ()))


KINDS: Mapping[str, _Kind] = {
    "default": _Kind(),
    "linear": _Kind(("factor",)),
    "dynamic": _Kind(("factor",)),
    "llama3": _Kind(("factor", "low_freq_factor", "high_freq_factor"), stretches=True),
    "yarn": _Kind(
        ("factor",),
        ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
        stretches=True,
    ),
    "longrope": _Kind(("short_factor", "long_factor"), ("factor", "attention_factor"), stretches=True),
}
"""The kinds by their names, with the keys of a config.json that each reads. `RopeConfig` has fields of the same names
(transformers: modeling_rope_utils.py)."""

_LLAMA_3: PlainTable = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""The numbers of Llama 3.1 and 3.2, for which `rope_scaling_factor` is short."""

_DEFAULTS = {"yarn": {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True}}

_ORIGINAL = "original_max_position_embeddings"
_SHARE = "partial_rotary_factor"

_VALUES = {
    "truncate": FLAG,
    "mscale": ZERO_OR_MORE,
    "mscale_all_dim": ZERO_OR_MORE,
    "short_factor": NUMBERS,
    "long_factor": NUMBERS,
    _ORIGINAL: COUNT,
}
"""The values of parameters that are more than a number above 0."""

_KEYS = Keys(
    read={
        **{key: Read(WORD, "default") for key in ("rope_type", "type")},
        "rope_theta": Read(NUMBER, 10000.0),
        _SHARE: Read(SHARE, 1.0),
        **{key: Read(_VALUES.get(key, NUMBER)) for kind in KINDS.values() for key in kind.parameters},
    }
)
"""What stands under `rope_parameters` or, formerly, `rope_scaling`."""


class RopeOfFamily(NamedTuple):
    """What transformers' class of a family can do with rotary positions.

    Attributes:
        kinds: The kinds, by their names in a config.json.
        rotates_parts: Whether it can rotate a part of each head (`partial_rotary_factor`).
    """

    kinds: Mapping[str, str] = dict(zip(KINDS, KINDS, strict=True))
    rotates_parts: bool = False


ANY_ROPE = RopeOfFamily()
"""What most classes can do: every kind, of whole heads."""


def _key(fields: Mapping[str, object]) -> str:
    return "rope_scaling" if fields.get("rope_scaling") else "rope_parameters"


def _kind_key(rope: Mapping[str, object]) -> str:
    """Return the key that tells the kind; the newer name goes before the older one, even if it is null."""
    return "type" if "type" in rope and "rope_type" not in rope else "rope_type"


def read_rope(text: Mapping[str, Any], family: RopeOfFamily, place: str = "") -> PlainTable:
    """Return the rotary positions of a language model, with defaults filled in.

    Args:
        text: Its configuration, as `read_values` returns it.
        family: What its family can do.
        place: Prefix of its keys in messages.

    Raises:
        ValueError: A value has the wrong type or is out of range; the message names it.
    """
    key = _key(text)
    longest = text["max_position_embeddings"]
    beside = {"rope_theta": text["rope_theta"], _SHARE: text.get(_SHARE, 1.0), _ORIGINAL: longest}
    told = beside | (text[key] or {})
    kind_key = _kind_key(told)
    said = {name: value for name, value in told.items() if name != "type" or name == kind_key}
    rope = read_values(said, _KEYS, f"{place}{key}.")
    kind = family.kinds.get(rope[kind_key], rope[kind_key])
    # Where both say it, transformers takes the one outside.
    original = text.get(_ORIGINAL) or rope[_ORIGINAL]
    if original is None and kind in KINDS and KINDS[kind].stretches:
        raise ValueError(f"{place}{key}.{_ORIGINAL} is null, expected {COUNT.expected}")
    # transformers takes null for false.
    truncate = {"truncate": bool(rope["truncate"])} if "truncate" in said else {}
    return rope | truncate | {"rope_type": kind, _ORIGINAL: original or longest}


def rope_fields(rope: Mapping[str, Any]) -> PlainTable:
    """Return the fields of a recipe's language model that say the same; those of plain positions for an unknown kind.

    Args:
        rope: Rotary positions, as `read_rope` returns them.
    """
    kind, share = rope["rope_type"], float(rope["partial_rotary_factor"])
    fields: PlainTable = {"rotary_base": float(rope["rope_theta"]), "rope_scaling_factor": None, "rope": None}
    told = {name: rope[name] for name in KINDS[kind].parameters} if kind in KINDS else {}
    if not told and share == 1:
        return fields
    if kind == "llama3" and share == 1 and told["factor"] and told | _LLAMA_3 == told:
        return fields | {"rope_scaling_factor": float(told["factor"])}
    return fields | {"rope": RopeConfig(kind=kind, **told, partial_rotary_factor=share)}


def resolved_rope(language: LanguageConfig) -> RopeConfig:
    """Return the rotary positions of a language model with the defaults of their kind filled in."""
    rope = language.rope
    if rope is None:
        factor = language.rope_scaling_factor
        return RopeConfig(kind="default") if factor is None else RopeConfig(kind="llama3", factor=factor, **_LLAMA_3)
    kind = KINDS[rope.kind]
    told = {name: getattr(rope, name) for name in kind.parameters if getattr(rope, name) is not None}
    original = {_ORIGINAL: language.max_position_embeddings} if kind.stretches else {}
    share = {"partial_rotary_factor": rope.partial_rotary_factor}
    return RopeConfig(kind=rope.kind, **{**original, **_DEFAULTS.get(rope.kind, {}), **told, **share})


def rope_differences(there: LanguageConfig, here: LanguageConfig) -> Iterator[tuple[str, Any, Any]]:
    """Yield how the rotary positions of two language models differ, in the words of the first one.

    The base is a field of its own. Positions that two recipes say in other words are the same.

    Yields:
        The path of a field below that of the language model, its value there and its value here; of `rope` itself,
        which is `None` there, the kind here.
    """
    if resolved_rope(there) == resolved_rope(here):
        return
    if there.rope_scaling_factor != here.rope_scaling_factor:
        yield "rope_scaling_factor", there.rope_scaling_factor, here.rope_scaling_factor
    if there.rope is None:
        if here.rope is not None:
            yield "rope", None, here.rope.kind
        return
    for field in dataclasses.fields(there.rope):
        held = None if field.default is dataclasses.MISSING else field.default
        value, held = getattr(there.rope, field.name), getattr(here.rope, field.name, held)
        if value != held:
            yield f"rope.{field.name}", value, held


def depends_on_longest(language: LanguageConfig) -> bool:
    """Return whether `max_position_embeddings` is a part of how the model computes, not only a limit."""
    rope = resolved_rope(language)
    return rope.kind == "dynamic" or (rope.kind == "longrope" and not rope.factor and not rope.attention_factor)


def rotated_size(language: LanguageConfig) -> int:
    """Return how many numbers of a head are rotated; an odd number takes one more along, since pairs are rotated."""
    return int(language.head_size * (language.rope.partial_rotary_factor if language.rope is not None else 1.0))


def angles_change_beyond(language: LanguageConfig) -> int | None:
    """Return the longest sequence whose angles do not depend on its length; `None` if the angles never do."""
    rope = resolved_rope(language)
    if rope.kind == "dynamic":
        return language.max_position_embeddings
    return rope.original_max_position_embeddings if rope.kind == "longrope" else None


def cache_lasts_until(language: LanguageConfig) -> int | None:
    """Return the longest sequence that cached keys can be of; `None` if there is none.

    Beyond it all frequencies of longrope are others, and transformers' class of Phi-3 computes its cache anew. With
    dynamic they change little by little, and transformers keeps the keys as they are.
    """
    return angles_change_beyond(language) if resolved_rope(language).kind == "longrope" else None


def attention_factor(language: LanguageConfig) -> float:
    """Return the factor on cosine and sine: yarn's (arXiv 2309.00071, equation 22) or longrope's (arXiv 2402.13753)."""
    rope = resolved_rope(language)
    original = rope.original_max_position_embeddings
    if rope.kind not in ("yarn", "longrope") or original is None:
        return 1.0
    if rope.attention_factor is not None:
        return rope.attention_factor
    factor = rope.factor or language.max_position_embeddings / original
    if factor <= 1:
        return 1.0
    if rope.kind == "longrope":
        return math.sqrt(1 + math.log(factor) / math.log(original))
    if rope.mscale and rope.mscale_all_dim:
        return _yarn_factor(factor, rope.mscale) / _yarn_factor(factor, rope.mscale_all_dim)
    return _yarn_factor(factor, 1.0)


def _yarn_factor(factor: float, mscale: float) -> float:
    return 0.1 * mscale * math.log(factor) + 1.0


def rope_faults(language: LanguageConfig, family: RopeOfFamily) -> Iterator[tuple[str, str]]:
    """Yield what cannot be computed, or what nothing reads, as names of `RopeConfig`'s fields and messages.

    Args:
        language: A language model with `rope`.
        family: What its family can do.
    """
    rope = language.rope
    assert rope is not None
    if rope.kind not in family.kinds.values():
        yield "kind", f"the family {language.family} has only {_listed(family)}, not {rope.kind}"
        return
    kind = KINDS[rope.kind]
    for name in kind.needs:
        if getattr(rope, name) is None:
            yield name, f"{name} is missing, which {rope.kind} needs"
            return
    for field in dataclasses.fields(RopeConfig):
        unread = field.name not in ("kind", "partial_rotary_factor", *kind.parameters)
        if unread and getattr(rope, field.name) is not None:
            yield field.name, f"{rope.kind} does not read {field.name}"
    if rope.partial_rotary_factor != 1 and not family.rotates_parts:
        yield (
            "partial_rotary_factor",
            f"partial_rotary_factor is {rope.partial_rotary_factor:g}, but the family {language.family} rotates "
            "whole heads",
        )
    yield from _uncomputable(language, resolved_rope(language))


def _uncomputable(language: LanguageConfig, rope: RopeConfig) -> Iterator[tuple[str, str]]:
    size = rotated_size(language)
    if size < (4 if rope.kind == "dynamic" else 2):
        yield "partial_rotary_factor", f"{size} numbers of a head are rotated, which is too few for {rope.kind}"
    for name in ("short_factor", "long_factor"):
        divisors = getattr(rope, name)
        if divisors is not None and len(divisors) != -(-size // 2):
            yield name, f"{name} has {len(divisors)} numbers, expected one for each of {-(-size // 2)} frequencies"
    low, high = rope.low_freq_factor, rope.high_freq_factor
    if low is not None and high is not None and low >= high:
        yield "high_freq_factor", f"high_freq_factor is {high:g}, expected more than low_freq_factor, {low:g}"
    slow, fast = rope.beta_slow, rope.beta_fast
    if slow is not None and fast is not None and slow > fast:
        yield "beta_fast", f"beta_fast is {fast:g}, expected at least beta_slow, {slow:g}"
    if rope.kind == "yarn" and language.rotary_base <= 1:
        yield "kind", f"yarn needs a base above 1, got {language.rotary_base:g}"
    if rope.kind == "longrope" and rope.original_max_position_embeddings == 1:
        yield "original_max_position_embeddings", "longrope needs an original length of more than 1"


def rope_problems(
    fields: Mapping[str, Any], language: LanguageConfig, family: RopeOfFamily, place: str = ""
) -> Iterator[str]:
    """Yield what is not supported in the rotary positions of a language model.

    Args:
        fields: Its configuration.
        language: The model that it describes.
        family: What its family can do.
        place: Prefix of its keys in messages.
    """
    key = _key(fields)
    rope = fields.get(key) or {}
    kind = rope.get(_kind_key(rope), "default")
    if kind not in family.kinds:
        yield f"{place}{key}: rope_type is {bare(kind) or shown(kind)}, only {_listed(family)} are supported"
        return
    # transformers fills in the original length before it renames a kind, and only for kinds that have one by then.
    is_filled_in = kind in KINDS and KINDS[kind].stretches
    if KINDS[family.kinds[kind]].stretches and not is_filled_in and _ORIGINAL not in rope:
        yield f"{place}{key}: {_ORIGINAL} is missing, which {kind} needs"
        return
    for name, value in rope.items():
        if name not in _KEYS.read and value is not None:
            yield f"{place}{key}: {bare(name)} is {bare(value)}, which is not supported"
    if language.rope is not None:
        for _, message in rope_faults(language, family):
            yield f"{place}{key}: {message}"


def _listed(family: RopeOfFamily) -> str:
    *others, last = dict.fromkeys(family.kinds.values())
    return f"{', '.join(others)} and {last}"


def rope_config_json(language: LanguageConfig, keys: Keys) -> PlainTable:
    """Return what a config.json says of the rotary positions of a language model, without defaults.

    Args:
        language: The language model.
        keys: The keys of its family; what is read outside of `rope_parameters` is written there too.
    """
    rope = rope_parameters(language)
    beside = {key: rope[key] for key in (_ORIGINAL, "partial_rotary_factor") if key in keys.read and key in rope}
    return {"rope_parameters": rope, **beside}


def rope_parameters(language: LanguageConfig) -> PlainTable:
    """Return the `rope_parameters` of a language model for a config.json, without defaults."""
    resolved = resolved_rope(language)
    rope = language.rope or resolved
    told = {name: getattr(rope, name) for name in KINDS[rope.kind].parameters if getattr(rope, name) is not None}
    if KINDS[rope.kind].stretches:
        told[_ORIGINAL] = resolved.original_max_position_embeddings
    share = {} if rope.partial_rotary_factor == 1 else {"partial_rotary_factor": rope.partial_rotary_factor}
    return {"rope_type": rope.kind, "rope_theta": language.rotary_base, **told, **share}
