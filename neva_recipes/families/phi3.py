"""Phi-3 and Phi-3.5 mini (transformers: Phi3Config): Llama with fused tensors."""

import dataclasses

from neva_recipes.families.keys import CAUSAL, ONE_WAY, Keys, Read
from neva_recipes.families.llama import LLAMA
from neva_recipes.families.rope import RopeOfFamily
from neva_recipes.families.tensors import with_tensors
from neva_recipes.families.values import COUNT, NUMBER, SHARE

__all__ = ["PHI3"]

PHI3 = dataclasses.replace(
    LLAMA,
    name="phi3",
    model_type="phi3",
    keys=Keys(
        read={
            **LLAMA.keys.read,
            "vocab_size": Read(COUNT, 32064),
            "hidden_size": Read(COUNT, 3072),
            "intermediate_size": Read(COUNT, 8192),
            "max_position_embeddings": Read(COUNT, 4096),
            "rms_norm_eps": Read(NUMBER, 1e-5),
            "sliding_window": Read(COUNT),
            "original_max_position_embeddings": Read(COUNT, 4096),
            "partial_rotary_factor": Read(SHARE, 1.0),
        },
        fixed={**CAUSAL, "hidden_act": "silu"},
        fixed_or_null={
            **ONE_WAY,
            **dict.fromkeys(("attention_bias", "mlp_bias", "lm_head_bias"), False),
            # Phi-4 mini says them; transformers' class reads none.
            **dict.fromkeys(("full_attn_mod", "interpolate_factor"), 1),
        },
        architectures=("Phi3ForCausalLM", "Phi3Model"),
        # Microsoft's directories carry the code that became transformers' own class.
        has_own_code=True,
    ),
    # The kinds had other names before; transformers renames them, but fills in no original length for `su`.
    rope=RopeOfFamily(
        {"default": "default", "longrope": "longrope", "su": "longrope", "yarn": "longrope"}, rotates_parts=True
    ),
    fields={**LLAMA.fields, "sliding_window": "sliding_window"},
    layer=with_tensors(
        LLAMA.layer,
        {
            "self_attention.linear_qkv.weight": {"self_attn.qkv_proj.weight": (("queries", "keys", "keys"), "hidden")},
            "mlp.linear_fc1.weight": {"mlp.gate_up_proj.weight": (("ffn", "ffn"), "hidden")},
        },
    ),
)
"""The family of Phi-3."""
