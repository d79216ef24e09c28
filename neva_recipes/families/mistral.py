"""Mistral 7B: Llama with a sliding window in some releases (transformers: MistralConfig)."""

import dataclasses

from neva_recipes.families.keys import CAUSAL, ONE_WAY, Read
from neva_recipes.families.llama import LLAMA
from neva_recipes.families.values import COUNT, COUNT_OR_NULL

__all__ = ["MISTRAL"]

MISTRAL = dataclasses.replace(
    LLAMA,
    name="mistral",
    model_type="mistral",
    keys=dataclasses.replace(
        LLAMA.keys,
        read={
            **LLAMA.keys.read,
            "intermediate_size": Read(COUNT, 14336),
            "num_key_value_heads": Read(COUNT, 8),
            "max_position_embeddings": Read(COUNT, 131072),
            "sliding_window": Read(COUNT_OR_NULL, 4096),
        },
        fixed={**CAUSAL, "hidden_act": "silu"},
        fixed_or_null={**ONE_WAY, "partial_rotary_factor": 1.0},
        idle=frozenset(),
        architectures=("MistralForCausalLM", "MistralModel"),
    ),
    fields={**LLAMA.fields, "sliding_window": "sliding_window"},
    conv_template="mistral_instruct",
)
"""The family of Mistral."""
