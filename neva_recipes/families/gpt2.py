"""GPT-2 (transformers: GPT2Config): learned positions, LayerNorm, biases everywhere."""

from neva_recipes.families.keys import CAUSAL, Keys, Read
from neva_recipes.families.language import LanguageFamily
from neva_recipes.families.tensors import Layout, Weight
from neva_recipes.families.values import COUNT, FLAG, LAYERS, NUMBER

__all__ = ["GPT2"]

_QKV = ("queries", "keys", "keys")

GPT2 = LanguageFamily(
    name="gpt2",
    model_type="gpt2",
    keys=Keys(
        read={
            "vocab_size": Read(COUNT, 50257),
            "n_positions": Read(COUNT, 1024),
            "n_embd": Read(COUNT, 768),
            "n_layer": Read(LAYERS, 12),
            "n_head": Read(COUNT, 12),
            "n_inner": Read(COUNT),
            "layer_norm_epsilon": Read(NUMBER, 1e-5),
            "tie_word_embeddings": Read(FLAG, True),
        },
        fixed={
            **CAUSAL,
            "add_cross_attention": False,
            "activation_function": "gelu_new",
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
        },
        fixed_or_null={"is_encoder_decoder": False},
        idle=frozenset(
            {
                # Attention in fp32, which is the same computation.
                "reorder_and_upcast_attn",
                # Heads for other tasks.
                *("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels"),
                "summary_first_dropout",
                # What old versions of transformers saved; n_ctx always was n_positions.
                *("n_ctx", "output_past", "predict_special_tokens"),
            }
        ),
        architectures=("GPT2LMHeadModel", "GPT2Model"),
    ),
    fields={
        "n_layer": "num_layers",
        "n_embd": "hidden_size",
        "n_inner": "ffn_hidden_size",
        "n_head": "num_attention_heads",
        "layer_norm_epsilon": "layernorm_epsilon",
    },
    body=(
        Weight("embedding.word_embeddings.weight", {"wte.weight": ("vocabulary", "hidden")}, Layout.VOCABULARY),
        Weight("embedding.position_embeddings.weight", {"wpe.weight": ("positions", "hidden")}),
        Weight("decoder.final_layernorm.weight", {"ln_f.weight": ("hidden",)}),
        Weight("decoder.final_layernorm.bias", {"ln_f.bias": ("hidden",)}),
    ),
    head=Weight("output_layer.weight", {"lm_head.weight": ("vocabulary", "hidden")}, Layout.VOCABULARY),
    layer=(
        Weight(
            "input_layernorm.weight", {"ln_1.weight": ("hidden",)}, fused="self_attention.linear_qkv.layer_norm_weight"
        ),
        Weight("input_layernorm.bias", {"ln_1.bias": ("hidden",)}, fused="self_attention.linear_qkv.layer_norm_bias"),
        Weight(
            "self_attention.linear_qkv.weight",
            {"attn.c_attn.weight": ("hidden", _QKV)},
            Layout.GROUPS,
            transposed=True,
        ),
        Weight("self_attention.linear_qkv.bias", {"attn.c_attn.bias": (_QKV,)}, Layout.GROUPS),
        Weight(
            "self_attention.linear_proj.weight",
            {"attn.c_proj.weight": ("queries", "hidden")},
            Layout.COLUMNS,
            transposed=True,
        ),
        Weight("self_attention.linear_proj.bias", {"attn.c_proj.bias": ("hidden",)}),
        Weight("pre_mlp_layernorm.weight", {"ln_2.weight": ("hidden",)}, fused="mlp.linear_fc1.layer_norm_weight"),
        Weight("pre_mlp_layernorm.bias", {"ln_2.bias": ("hidden",)}, fused="mlp.linear_fc1.layer_norm_bias"),
        Weight("mlp.linear_fc1.weight", {"mlp.c_fc.weight": ("hidden", "ffn")}, Layout.STACKED, transposed=True),
        Weight("mlp.linear_fc1.bias", {"mlp.c_fc.bias": ("ffn",)}, Layout.STACKED),
        Weight("mlp.linear_fc2.weight", {"mlp.c_proj.weight": ("ffn", "hidden")}, Layout.COLUMNS, transposed=True),
        Weight("mlp.linear_fc2.bias", {"mlp.c_proj.bias": ("hidden",)}),
    ),
    core={
        "normalization": "LayerNorm",
        "gated_linear_unit": False,
        "activation_func": "gelu_tanh",
        "add_bias_linear": True,
    },
    prefix="transformer.",
    layers="h.",
    positions="learned",
    longest="n_positions",
)
"""The family of GPT-2."""
