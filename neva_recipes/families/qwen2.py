"""Qwen 2 and 2.5: Llama with biases of query, key and value (transformers: Qwen2Config)."""

import dataclasses

from neva_recipes.families.keys import CAUSAL, ONE_WAY, Read
from neva_recipes.families.llama import LLAMA
from neva_recipes.families.tensors import Layout, Weight
from neva_recipes.families.values import COUNT, COUNT_OR_NULL

__all__ = ["QWEN2"]

QWEN2 = dataclasses.replace(
    LLAMA,
    name="qwen2",
    model_type="qwen2",
    keys=dataclasses.replace(
        LLAMA.keys,
        read={
            **LLAMA.keys.read,
            "vocab_size": Read(COUNT, 151936),
            "intermediate_size": Read(COUNT, 22016),
            "num_key_value_heads": Read(COUNT_OR_NULL, 32),
            "max_position_embeddings": Read(COUNT, 32768),
        },
        # With a window the layers from max_window_layers on would see less than those below.
        fixed={**CAUSAL, "hidden_act": "silu", "use_sliding_window": False},
        fixed_or_null={**ONE_WAY, "partial_rotary_factor": 1.0},
        each={"layer_types": "full_attention"},
        idle=frozenset({"sliding_window", "max_window_layers"}),
        architectures=("Qwen2ForCausalLM", "Qwen2Model"),
    ),
    layer=(
        *LLAMA.layer,
        Weight(
            "self_attention.linear_qkv.bias",
            {
                "self_attn.q_proj.bias": ("queries",),
                "self_attn.k_proj.bias": ("keys",),
                "self_attn.v_proj.bias": ("keys",),
            },
            Layout.GROUPS,
        ),
    ),
    core={**LLAMA.core, "add_qkv_bias": True},
    conv_template="chatml",
)
"""The family of Qwen 2."""
