"""Llama 2 and 3, and the models of the same shape: Vicuna, SmolLM and many others (transformers: LlamaConfig)."""

from neva_recipes.families.keys import CAUSAL, ONE_WAY, Keys, Read
from neva_recipes.families.language import LanguageFamily
from neva_recipes.families.tensors import Layout, Weight
from neva_recipes.families.values import COUNT, FLAG, LAYERS, NUMBER, OBJECT

__all__ = ["LLAMA"]

LLAMA = LanguageFamily(
    name="llama",
    model_type="llama",
    keys=Keys(
        read={
            "vocab_size": Read(COUNT, 32000),
            "hidden_size": Read(COUNT, 4096),
            "intermediate_size": Read(COUNT, 11008),
            "num_hidden_layers": Read(LAYERS, 32),
            "num_attention_heads": Read(COUNT, 32),
            "num_key_value_heads": Read(COUNT),
            "head_dim": Read(COUNT),
            "max_position_embeddings": Read(COUNT, 2048),
            "rms_norm_eps": Read(NUMBER, 1e-6),
            "tie_word_embeddings": Read(FLAG, False),
            "rope_theta": Read(NUMBER, 10000.0),
            "rope_scaling": Read(OBJECT),
            "rope_parameters": Read(OBJECT),
        },
        fixed={
            **CAUSAL,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
        },
        fixed_or_null={
            **ONE_WAY,
            "bias": False,
            "partial_rotary_factor": 1.0,
            "rotary_pct": 1.0,
            "rope_interleaved": False,
            "use_rope": True,
            "logit_scale": 1.0,
            "logits_scaling": 1.0,
            "embedding_multiplier": 1.0,
            "residual_multiplier": 1.0,
        },
        # The conversion from a nanotron checkpoint to a Llama leaves this behind, as in SmolLM.
        idle=frozenset({"is_llama_config"}),
        architectures=("LlamaForCausalLM", "LlamaModel", "LLaMAForCausalLM"),
    ),
    fields={
        "num_hidden_layers": "num_layers",
        "hidden_size": "hidden_size",
        "intermediate_size": "ffn_hidden_size",
        "num_attention_heads": "num_attention_heads",
        "num_key_value_heads": "num_query_groups",
        "head_dim": "kv_channels",
        "rms_norm_eps": "layernorm_epsilon",
    },
    body=(
        Weight(
            "embedding.word_embeddings.weight", {"embed_tokens.weight": ("vocabulary", "hidden")}, Layout.VOCABULARY
        ),
        Weight("decoder.final_layernorm.weight", {"norm.weight": ("hidden",)}),
    ),
    head=Weight("output_layer.weight", {"lm_head.weight": ("vocabulary", "hidden")}, Layout.VOCABULARY),
    layer=(
        Weight(
            "input_layernorm.weight",
            {"input_layernorm.weight": ("hidden",)},
            fused="self_attention.linear_qkv.layer_norm_weight",
        ),
        Weight(
            "self_attention.linear_qkv.weight",
            {
                "self_attn.q_proj.weight": ("queries", "hidden"),
                "self_attn.k_proj.weight": ("keys", "hidden"),
                "self_attn.v_proj.weight": ("keys", "hidden"),
            },
            Layout.GROUPS,
        ),
        Weight("self_attention.linear_proj.weight", {"self_attn.o_proj.weight": ("hidden", "queries")}, Layout.COLUMNS),
        Weight(
            "pre_mlp_layernorm.weight",
            {"post_attention_layernorm.weight": ("hidden",)},
            fused="mlp.linear_fc1.layer_norm_weight",
        ),
        Weight(
            "mlp.linear_fc1.weight",
            {"mlp.gate_proj.weight": ("ffn", "hidden"), "mlp.up_proj.weight": ("ffn", "hidden")},
            Layout.STACKED,
        ),
        Weight("mlp.linear_fc2.weight", {"mlp.down_proj.weight": ("hidden", "ffn")}, Layout.COLUMNS),
    ),
    core={
        "normalization": "RMSNorm",
        "gated_linear_unit": True,
        "activation_func": "silu",
        "add_bias_linear": False,
    },
)
"""The family of Llama."""
