"""Rotary positions of every kind that transformers has, for Core's attention."""

import math

import torch
from megatron.core.inference.contexts import BaseInferenceContext
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
from megatron.core.transformer.transformer_config import TransformerConfig
from torch.distributed import ProcessGroup

from neva_model.model.context import own_positions
from neva_recipes.config import LanguageConfig, RopeConfig
from neva_recipes.families.rope import angles_change_beyond, attention_factor, resolved_rope, rotated_size

__all__ = ["Rotary", "rotary_frequencies", "set_attention_factor"]


_ANGLES = "rope_angles"
"""Attribute of a key/value cache: the angles of its keys."""


class Rotary(RotaryEmbedding):
    """The angles of each position, which Core's attention and Transformer Engine's fused kernel turn heads by.

    Core has the plain kind, and Llama 3's with fixed numbers; its yarn leaves out `truncate` and `attention_factor`.
    The factor on cosine and sine is not here, since the fused kernel takes angles only: see `set_attention_factor`.
    """

    inv_freq: torch.Tensor

    def __init__(self, config: TransformerConfig, language: LanguageConfig) -> None:
        """Compute the frequencies of sequences whose angles do not depend on their length.

        Args:
            config: The configuration of the transformer.
            language: The language model of the recipe.
        """
        super().__init__(
            kv_channels=language.head_size, rotary_percent=1.0, use_cpu_initialization=config.use_cpu_initialization
        )
        self._language, self._rope = language, resolved_rope(language)
        self._steady_length = angles_change_beyond(language)
        self._angles: torch.Tensor | None = None
        self.inv_freq = rotary_frequencies(language, self._rope).to(self.inv_freq.device)

    def take_positions(self, position_ids: torch.Tensor, context: BaseInferenceContext | None) -> None:
        """Take the angles of the sequences to come, where they depend on the length, as transformers does.

        Core's cache holds keys that are not rotated yet, transformers' holds rotated ones: with the frequencies of the
        length that there was when they came. So the angles of a cached sequence are kept beside its keys.

        Args:
            position_ids: Positions `[batch, sequence]`; the length is the largest plus one.
            context: Key/value cache.
        """
        self._angles = None
        if self._steady_length is None:
            return
        length = int(position_ids.max()) + 1
        self.inv_freq = rotary_frequencies(self._language, self._rope, length).to(self.inv_freq.device)
        if context is not None:
            cached = context.sequence_len_offset
            new = self.get_emb(length - cached, cached)
            self._angles = torch.cat([getattr(context, _ANGLES), new]) if cached else new
            setattr(context, _ANGLES, self._angles)

    def forward(
        self, max_seq_len: int, offset: int = 0, packed_seq: bool = False, cp_group: ProcessGroup | None = None
    ) -> torch.Tensor:
        """Return the angles `[positions of this rank, 1, 1, rotated numbers]`.

        Args:
            max_seq_len: Number of positions over all context-parallel ranks.
            offset: The first position.
            packed_seq: Must be false.
            cp_group: Must be `None`: the ranks are Megatron's own.
        """
        assert not packed_seq and cp_group is None
        if self._angles is not None:
            return self._angles
        if self._steady_length is None:
            return super().forward(max_seq_len, offset)
        # Core keeps what it returns for each length, which may have other frequencies by now.
        return own_positions(self.get_emb(max_seq_len, offset), 0)


def set_attention_factor(config: TransformerConfig, language: LanguageConfig) -> None:
    """Make Core multiply cosine and sine by `attention_factor`, or do what is the same.

    Where whole heads are rotated, every score has the factor twice, so it becomes a factor on the softmax scale, and
    fused kernels need not know it. Where a part of a head is not rotated, Core multiplies cosine and sine of the other
    part, without fused kernels. It computes the factor as yarn does, from attributes that are no fields:
    `(0.1 * mscale * ln(scaling) + 1) / (0.1 * mscale_all_dim * ln(scaling) + 1)`.
    """
    factor = attention_factor(language)
    if factor == 1:
        return
    if rotated_size(language) == language.head_size:
        config.softmax_scale = factor**2 / math.sqrt(language.head_size)
        return
    config.apply_rope_fusion = False
    for name, value in (("rotary_scaling_factor", math.e), ("mscale", (factor - 1) / 0.1), ("mscale_all_dim", 0.0)):
        setattr(config, f"yarn_{name}", value)


def rotary_frequencies(language: LanguageConfig, rope: RopeConfig, length: int = 0) -> torch.Tensor:
    """Return the angle between neighbouring positions for each pair of numbers of a head, in fp32.

    The operations and their order are those of transformers (modeling_rope_utils.py), so the results are the same bits.

    Args:
        language: The language model of the recipe.
        rope: Its rotary positions with the defaults of their kind filled in.
        length: Length of the sequences, which counts for dynamic and longrope.
    """
    base, size = language.rotary_base, rotated_size(language)
    exponents = torch.arange(0, size, 2, dtype=torch.int64, device="cpu").float() / size
    if rope.kind == "dynamic":
        longest = language.max_position_embeddings
        stretched = _given(rope.factor) * torch.tensor(max(length, longest)) / longest - (_given(rope.factor) - 1)
        return 1.0 / (base * stretched ** (size / (size - 2))) ** exponents
    if rope.kind == "longrope":
        is_long = length > _given(rope.original_max_position_embeddings)
        divisors = torch.tensor(rope.long_factor if is_long else rope.short_factor, dtype=torch.float32, device="cpu")
        return 1.0 / (divisors * base**exponents)
    if rope.kind == "yarn":
        return _yarn(base**exponents, rope, base, size)
    frequencies: torch.Tensor = 1.0 / base**exponents
    if rope.kind == "linear":
        return frequencies / _given(rope.factor)
    return _llama_3(frequencies, rope) if rope.kind == "llama3" else frequencies


def _given(value: float | None) -> float:
    assert value is not None, "the plan requires it"
    return value


def _llama_3(frequencies: torch.Tensor, rope: RopeConfig) -> torch.Tensor:
    factor, original = _given(rope.factor), _given(rope.original_max_position_embeddings)
    low, high = _given(rope.low_freq_factor), _given(rope.high_freq_factor)
    wavelengths = 2 * math.pi / frequencies
    stretched = torch.where(wavelengths > original / low, frequencies / factor, frequencies)
    share = (original / wavelengths - low) / (high - low)
    between = (1 - share) * stretched / factor + share * stretched
    is_between = ~(wavelengths < original / high) * ~(wavelengths > original / low)
    return torch.where(is_between, between, stretched)


def _yarn(wavelengths: torch.Tensor, rope: RopeConfig, base: float, size: int) -> torch.Tensor:
    """Return yarn's frequencies: as they are, divided by the factor, and a ramp between (arXiv 2309.00071, 3.2).

    Args:
        wavelengths: Those of plain positions, without the factor of 2 pi.
        rope: The rotary positions.
        base: Their base.
        size: How many numbers of a head are rotated.
    """

    def pair_of(turns: float) -> float:
        original = _given(rope.original_max_position_embeddings)
        return (size * math.log(original / (turns * 2 * math.pi))) / (2 * math.log(base))

    low, high = pair_of(_given(rope.beta_fast)), pair_of(_given(rope.beta_slow))
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    if low == high:
        high += 0.001
    ramp = torch.clamp((torch.arange(len(wavelengths), dtype=torch.float32, device="cpu") - low) / (high - low), 0, 1)
    kept = 1 - ramp
    return 1.0 / (_given(rope.factor) * wavelengths) * (1 - kept) + 1.0 / wavelengths * kept
