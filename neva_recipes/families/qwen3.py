"""Qwen 3 without experts: Llama with norms of query and key, over the head size (transformers: Qwen3Config)."""

import dataclasses

from neva_recipes.families.keys import Read
from neva_recipes.families.llama import LLAMA
from neva_recipes.families.qwen2 import QWEN2
from neva_recipes.families.tensors import Weight
from neva_recipes.families.values import COUNT

__all__ = ["QWEN3"]

QWEN3 = dataclasses.replace(
    LLAMA,
    name="qwen3",
    model_type="qwen3",
    keys=dataclasses.replace(
        QWEN2.keys,
        read={**QWEN2.keys.read, "head_dim": Read(COUNT, 128)},
        fixed={**QWEN2.keys.fixed, "attention_bias": False},
        architectures=("Qwen3ForCausalLM", "Qwen3Model"),
    ),
    layer=(
        *LLAMA.layer,
        Weight("self_attention.q_layernorm.weight", {"self_attn.q_norm.weight": ("head",)}),
        Weight("self_attention.k_layernorm.weight", {"self_attn.k_norm.weight": ("head",)}),
    ),
    core={**LLAMA.core, "qk_layernorm": True},
    conv_template="chatml",
)
"""The family of Qwen 3."""
