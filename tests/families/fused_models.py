"""Random models of the families whose tensors differ from those of Llama, by transformers and by hand."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

ROWS = 331
"""Rows of the vocabulary: more than the tokens of the world's tokenizer, and an odd number."""

SHAPES = {
    ("internlm2", "grouped"): {},
    ("internlm2", "one group"): {"num_key_value_heads": 1, "num_hidden_layers": 3},
    ("internlm2", "tied"): {"num_key_value_heads": 4, "tie_word_embeddings": True},
    ("phi3", "grouped"): {"rope_theta": 5000.0},
    ("phi3", "wide heads"): {"head_dim": 16, "num_hidden_layers": 3},
    ("phi3", "window"): {"sliding_window": 40},
    ("phi3", "tied"): {"num_key_value_heads": 4, "tie_word_embeddings": True},
    ("gpt2", "as published"): {},
    ("gpt2", "untied"): {"tie_word_embeddings": False, "n_layer": 3},
    ("gpt2", "narrow"): {"n_inner": 88, "n_head": 3},
    ("gpt2", "untied narrow"): {"tie_word_embeddings": False, "n_inner": 40},
}
"""By family and name: keys of its config.json."""

_LLAMA = {
    "vocab_size": ROWS,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 640,
    "rms_norm_eps": 1e-5,
    "pad_token_id": None,
}
_GPT2 = {
    "vocab_size": ROWS,
    "n_embd": 48,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 640,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def save(family: str, shape: str, directory: Path):
    """Write a directory of random weights, norms and biases too, and return a transformers model that computes it."""
    told = SHAPES[family, shape]
    if family == "gpt2":
        oracle = drawn(GPT2LMHeadModel(GPT2Config(**{**_GPT2, **told})))
    elif family == "phi3":
        oracle = drawn(Phi3ForCausalLM(Phi3Config(**{**_LLAMA, **told})))
    else:
        oracle = drawn(LlamaForCausalLM(LlamaConfig(**{**_LLAMA, **told})))
        save_internlm2(oracle, directory)
        return oracle
    oracle.save_pretrained(directory)
    return oracle


@torch.no_grad()
def drawn(model):
    """Give every weight of a model a value that matters, norms and biases too."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        values = torch.empty(parameter.shape).normal_(0.0, 0.15, generator=generator)
        parameter.copy_(values + 1.0 if parameter.dim() == 1 else values)
    return model.eval()


def save_internlm2(llama, directory: Path) -> None:
    """Write the weights of a Llama as InternLM2 stores them (its modeling code: `(h gs d)`, gs = queries + 2)."""
    config = llama.config
    size, groups = config.head_dim, config.num_key_value_heads
    per_group = config.num_attention_heads // groups
    tensors = {
        "model.tok_embeddings.weight": llama.model.embed_tokens.weight,
        "model.norm.weight": llama.model.norm.weight,
    }
    if not config.tie_word_embeddings:
        tensors["output.weight"] = llama.lm_head.weight
    for number, layer in enumerate(llama.model.layers):
        attention, mlp, rows = layer.self_attn, layer.mlp, []
        for group in range(groups):
            for query in range(group * per_group, (group + 1) * per_group):
                rows.append(attention.q_proj.weight[query * size : (query + 1) * size])
            rows.append(attention.k_proj.weight[group * size : (group + 1) * size])
            rows.append(attention.v_proj.weight[group * size : (group + 1) * size])
        tensors |= {
            f"model.layers.{number}.{name}.weight": weight
            for name, weight in {
                "attention.wqkv": torch.cat(rows),
                "attention.wo": attention.o_proj.weight,
                "feed_forward.w1": mlp.gate_proj.weight,
                "feed_forward.w3": mlp.up_proj.weight,
                "feed_forward.w2": mlp.down_proj.weight,
                "attention_norm": layer.input_layernorm.weight,
                "ffn_norm": layer.post_attention_layernorm.weight,
            }.items()
        }
    directory.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: weight.detach().contiguous().clone() for name, weight in tensors.items()},
        directory / "model.safetensors",
        metadata={"format": "pt"},
    )
    (directory / "config.json").write_text(json.dumps(internlm2_config(config)))


def internlm2_config(config) -> dict:
    """Return the config.json of an InternLM2 of the sizes of a Llama, with the keys of a published one."""
    return {
        "architectures": ["InternLM2ForCausalLM"],
        "attn_implementation": "eager",
        "auto_map": {
            "AutoConfig": "configuration_internlm2.InternLM2Config",
            "AutoModelForCausalLM": "modeling_internlm2.InternLM2ForCausalLM",
            "AutoModel": "modeling_internlm2.InternLM2ForCausalLM",
        },
        "bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "model_type": "internlm2",
        "pad_token_id": 2,
        "rope_scaling": None,
        "rope_theta": 10000,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        **{key: getattr(config, key) for key in _LLAMA if key != "pad_token_id"},
        "tie_word_embeddings": config.tie_word_embeddings,
    }
