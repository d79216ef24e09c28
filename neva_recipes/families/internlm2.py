"""InternLM2 (the code of its own in its directories: InternLM2Config): Llama with other names and one fused tensor."""

import dataclasses

from neva_recipes.families.keys import ONE_WAY, Keys, Read
from neva_recipes.families.llama import LLAMA
from neva_recipes.families.rope import RopeOfFamily
from neva_recipes.families.tensors import Layout, Weight
from neva_recipes.families.values import COUNT, FLAG, LAYERS, NUMBER, OBJECT

__all__ = ["INTERNLM2"]

INTERNLM2 = dataclasses.replace(
    LLAMA,
    name="internlm2",
    model_type="internlm2",
    keys=Keys(
        read={
            "vocab_size": Read(COUNT, 103168),
            "hidden_size": Read(COUNT, 4096),
            "intermediate_size": Read(COUNT, 11008),
            "num_hidden_layers": Read(LAYERS, 32),
            "num_attention_heads": Read(COUNT, 32),
            "num_key_value_heads": Read(COUNT),
            "max_position_embeddings": Read(COUNT, 2048),
            "rms_norm_eps": Read(NUMBER, 1e-6),
            "tie_word_embeddings": Read(FLAG, False),
            "rope_theta": Read(NUMBER),
            "rope_scaling": Read(OBJECT),
            "rope_parameters": Read(OBJECT),
        },
        # The default of `bias` is true there; every published directory says false.
        fixed={**ONE_WAY, "hidden_act": "silu", "bias": False},
        architectures=("InternLM2ForCausalLM", "InternLM2Model"),
        has_own_code=True,
    ),
    fields={theirs: ours for theirs, ours in LLAMA.fields.items() if ours != "kv_channels"},
    body=(
        Weight(
            "embedding.word_embeddings.weight", {"tok_embeddings.weight": ("vocabulary", "hidden")}, Layout.VOCABULARY
        ),
        Weight("decoder.final_layernorm.weight", {"norm.weight": ("hidden",)}),
    ),
    head=Weight("output_layer.weight", {"output.weight": ("vocabulary", "hidden")}, Layout.VOCABULARY),
    layer=(
        Weight(
            "input_layernorm.weight",
            {"attention_norm.weight": ("hidden",)},
            fused="self_attention.linear_qkv.layer_norm_weight",
        ),
        # Its rows have Core's own order: the queries of a group, its key, its value.
        Weight("self_attention.linear_qkv.weight", {"attention.wqkv.weight": ("groups", "hidden")}, Layout.STACKED),
        Weight("self_attention.linear_proj.weight", {"attention.wo.weight": ("hidden", "queries")}, Layout.COLUMNS),
        Weight("pre_mlp_layernorm.weight", {"ffn_norm.weight": ("hidden",)}, fused="mlp.linear_fc1.layer_norm_weight"),
        Weight(
            "mlp.linear_fc1.weight",
            {"feed_forward.w1.weight": ("ffn", "hidden"), "feed_forward.w3.weight": ("ffn", "hidden")},
            Layout.STACKED,
        ),
        Weight("mlp.linear_fc2.weight", {"feed_forward.w2.weight": ("hidden", "ffn")}, Layout.COLUMNS),
    ),
    rope=RopeOfFamily({kind: kind for kind in ("default", "linear", "dynamic")}),
    exported_as=LLAMA,
    conv_template="chatml",
)
"""The family of InternLM2."""
