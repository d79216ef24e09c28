"""Phi-3 and Phi-3.5 mini (transformers: Phi3Config): Llama with fused tensors."""

import dataclasses

from neva_recipes.families.keys import ONE_WAY, Keys, Read
from neva_recipes.families.llama import LLAMA
from neva_recipes.families.rope import RopeOfFamily
from neva_recipes.families.tensors import Axis
from neva_recipes.families.values import COUNT, FLAG, LAYERS, NUMBER, OBJECT, SHARE

__all__ = ["PHI3"]

_OWN: dict[str, dict[str, tuple[Axis, ...]]] = {
    "self_attention.linear_qkv.weight": {"self_attn.qkv_proj.weight": (("queries", "keys", "keys"), "hidden")},
    "mlp.linear_fc1.weight": {"mlp.gate_up_proj.weight": (("ffn", "ffn"), "hidden")},
}
"""The tensors that differ from those of Llama, by Core's name."""

PHI3 = dataclasses.replace(
    LLAMA,
    name="phi3",
    model_type="phi3",
    keys=Keys(
        read={
            "vocab_size": Read(COUNT, 32064),
            "hidden_size": Read(COUNT, 3072),
            "intermediate_size": Read(COUNT, 8192),
            "num_hidden_layers": Read(LAYERS, 32),
            "num_attention_heads": Read(COUNT, 32),
            "num_key_value_heads": Read(COUNT),
            "head_dim": Read(COUNT),
            "max_position_embeddings": Read(COUNT, 4096),
            "rms_norm_eps": Read(NUMBER, 1e-5),
            "tie_word_embeddings": Read(FLAG, False),
            "sliding_window": Read(COUNT),
            "rope_theta": Read(NUMBER),
            "rope_scaling": Read(OBJECT),
            "rope_parameters": Read(OBJECT),
            "original_max_position_embeddings": Read(COUNT, 4096),
            "partial_rotary_factor": Read(SHARE, 1.0),
        },
        fixed={
            **ONE_WAY,
            "hidden_act": "silu",
            "attention_bias": False,
        },
        architectures=("Phi3ForCausalLM", "Phi3Model"),
        # Microsoft's directories carry the code that became transformers' own class.
        has_own_code=True,
    ),
    # The kinds had other names before; transformers renames them.
    rope=RopeOfFamily(
        {"default": "default", "longrope": "longrope", "su": "longrope", "yarn": "longrope"}, rotates_parts=True
    ),
    fields={**LLAMA.fields, "sliding_window": "sliding_window"},
    layer=tuple(dataclasses.replace(weight, tensors=_OWN.get(weight.core, weight.tensors)) for weight in LLAMA.layer),
)
"""The family of Phi-3."""
