"""InternLM2 (the code of its own in its directories: InternLM2Config): Llama with other names and one fused tensor."""

import dataclasses

from neva_recipes.families.keys import CAUSAL, ONE_WAY, Keys, Read
from neva_recipes.families.llama import LLAMA
from neva_recipes.families.rope import RopeOfFamily
from neva_recipes.families.tensors import Layout, Weight, with_tensors
from neva_recipes.families.values import COUNT

__all__ = ["INTERNLM2"]

_QKV = Weight("self_attention.linear_qkv.weight", {"attention.wqkv.weight": ("groups", "hidden")}, Layout.STACKED)
"""Its rows have Core's own order: the queries of a group, its key, its value."""

_LAYER = with_tensors(
    LLAMA.layer,
    {
        "input_layernorm.weight": {"attention_norm.weight": ("hidden",)},
        "self_attention.linear_proj.weight": {"attention.wo.weight": ("hidden", "queries")},
        "pre_mlp_layernorm.weight": {"ffn_norm.weight": ("hidden",)},
        "mlp.linear_fc1.weight": {
            "feed_forward.w1.weight": ("ffn", "hidden"),
            "feed_forward.w3.weight": ("ffn", "hidden"),
        },
        "mlp.linear_fc2.weight": {"feed_forward.w2.weight": ("hidden", "ffn")},
    },
)

INTERNLM2 = dataclasses.replace(
    LLAMA,
    name="internlm2",
    model_type="internlm2",
    keys=Keys(
        read={
            **{key: read for key, read in LLAMA.keys.read.items() if key != "head_dim"},
            "vocab_size": Read(COUNT, 103168),
        },
        # The default of `bias` is true there; every published directory says false.
        fixed={**CAUSAL, "hidden_act": "silu", "bias": False},
        fixed_or_null=ONE_WAY,
        architectures=("InternLM2ForCausalLM", "InternLM2Model"),
        has_own_code=True,
    ),
    fields={theirs: ours for theirs, ours in LLAMA.fields.items() if ours != "kv_channels"},
    body=with_tensors(
        LLAMA.body, {"embedding.word_embeddings.weight": {"tok_embeddings.weight": ("vocabulary", "hidden")}}
    ),
    head=dataclasses.replace(LLAMA.head, tensors={"output.weight": ("vocabulary", "hidden")}),
    layer=tuple(_QKV if weight.core == _QKV.core else weight for weight in _LAYER),
    rope=RopeOfFamily({kind: kind for kind in ("default", "linear", "dynamic")}),
    exported_as=LLAMA,
    conv_template="chatml",
)
"""The family of InternLM2."""
