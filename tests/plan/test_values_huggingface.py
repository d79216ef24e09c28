"""A value of a config.json is refused by name where transformers refuses it, and null is what it is there.

Whether transformers takes it is asked of a model that it makes and runs, since it notices some values only there.
"""

import json

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.quantizers.auto import AutoQuantizationConfig

from neva_recipes.config import CheckpointError
from neva_recipes.families import language_families
from neva_recipes.plan.huggingface.configuration import read_configuration

TEXT = {
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": None,
}
SIZES = {
    **dict.fromkeys(("llama", "qwen2", "mistral", "phi3"), TEXT),
    "qwen3": {**TEXT, "head_dim": 16},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 100},
}
FAMILIES = {family.name: family for family in language_families() if family.name in SIZES}


def complaint(folder, fields):
    """Return what is said of a configuration here; empty if it is taken."""
    (folder / "config.json").write_text(json.dumps(fields))
    try:
        problems = read_configuration(folder).problems_with("language")
    except CheckpointError as error:
        return str(error).removeprefix(f"{folder}/config.json: ")
    return "; ".join(problems)


@torch.no_grad()
def logits_of(folder, fields, tokens=(3, 4, 5, 6)):
    """Return what transformers computes of a configuration and weights that are always the same."""
    (folder / "config.json").write_text(json.dumps(fields))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), attn_implementation="eager")
    return model.eval()(torch.tensor([tokens])).logits


def takes(folder, fields):
    try:
        logits_of(folder, fields)
    except (StrictDataclassError, ArithmeticError, KeyError, TypeError, ValueError):
        return False
    return True


FIXED = [(name, key) for name, family in FAMILIES.items() for key in family.keys.fixed]
FIXED_OR_NULL = [(name, key) for name, family in FAMILIES.items() for key in family.keys.fixed_or_null]


@pytest.mark.parametrize(("family", "key"), FIXED)
def test_null_is_refused_for_a_property_of_the_class(family, key, tmp_path):
    fields = {"model_type": family, **SIZES[family]}
    assert complaint(tmp_path, fields) == ""
    assert complaint(tmp_path, {**fields, key: None}).startswith(f"{key} is None, only ")
    if key != "is_causal":
        assert takes(tmp_path, fields) and not takes(tmp_path, {**fields, key: None})
        return
    # It is not refused there: a token sees those after it.
    others = (3, 4, 5, 7)
    assert torch.equal(logits_of(tmp_path, fields)[:, 0], logits_of(tmp_path, fields, others)[:, 0])
    fields[key] = None
    assert not torch.equal(logits_of(tmp_path, fields)[:, 0], logits_of(tmp_path, fields, others)[:, 0])


@pytest.mark.parametrize(("family", "key"), FIXED_OR_NULL)
def test_null_says_nothing_where_transformers_takes_it_so(family, key, tmp_path):
    fields = {"model_type": family, **SIZES[family]}
    assert complaint(tmp_path, {**fields, key: None}) == ""
    assert torch.equal(logits_of(tmp_path, {**fields, key: None}), logits_of(tmp_path, fields))


YARN = {"rope_type": "yarn", "factor": 2.0}
DIVISORS = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}


@pytest.mark.parametrize(
    ("family", "change", "told"),
    [
        ("llama", {"rope_theta": None}, "rope_theta is null, expected a number above 0, at most 1e+30"),
        ("llama", {"rope_parameters": {"rope_theta": None}}, "rope_parameters.rope_theta is null, expected a number"),
        ("llama", {"rope_scaling": {"rope_type": ""}}, 'rope_scaling: rope_type is "", only default, linear, '),
        ("llama", {"rope_scaling": {"rope_type": None}}, "rope_scaling.rope_type is null, expected a string"),
        ("llama", {"rope_scaling": {"type": None}}, "rope_scaling.type is null, expected a string"),
        ("llama", {"rope_scaling": {"rope_type": "", "type": "default"}}, 'rope_scaling: rope_type is "", only '),
        (
            "llama",
            {"rope_scaling": {**YARN, "original_max_position_embeddings": None}},
            "rope_scaling.original_max_position_embeddings is null, expected a whole number from 1 to 2147483647",
        ),
        (
            "llama",
            {"rope_scaling": {**YARN, "partial_rotary_factor": None}},
            "rope_scaling.partial_rotary_factor is null, expected a number above 0, at most 1",
        ),
        ("phi3", {"partial_rotary_factor": None}, "partial_rotary_factor is null, expected a number above 0, at most"),
        ("phi3", {"original_max_position_embeddings": None}, "original_max_position_embeddings is null, expected a wh"),
        (
            "phi3",
            {"rope_scaling": {"type": "su", **DIVISORS}, "original_max_position_embeddings": 128},
            "rope_scaling: original_max_position_embeddings is missing, which su needs",
        ),
        ("llama", {"tie_word_embeddings": None}, "tie_word_embeddings is null, expected true or false"),
        ("qwen2", {"layer_types": []}, "layer_types has a length of 0, expected one entry for each of 2 layers"),
        ("qwen3", {"layer_types": ["full_attention"]}, "layer_types has a length of 1, expected one entry for each"),
        (
            "qwen2",
            {"layer_types": "full_attention"},
            "layer_types is full_attention, expected a list with full_attention for each layer",
        ),
        (
            "llama",
            {"hidden_size": 8, "num_attention_heads": 16},
            "hidden_size is 8, expected at least num_attention_heads, which is 16",
        ),
        ("phi3", {"hidden_size": 2}, "hidden_size is 2, expected at least num_attention_heads, which is 4"),
        ("gpt2", {"n_embd": 3}, "n_embd is 3, expected at least n_head, which is 4"),
    ],
)
def test_what_transformers_refuses_is_refused_by_name(family, change, told, tmp_path):
    fields = {"model_type": family, **SIZES[family]}
    assert takes(tmp_path, fields) and not takes(tmp_path, {**fields, **change})
    assert complaint(tmp_path, {**fields, **change}).startswith(told)


@pytest.mark.parametrize(
    ("family", "change", "rope"),
    [
        ("llama", {"rope_scaling": {}, "rope_parameters": None}, None),
        ("llama", {"rope_scaling": {"rope_type": "linear", "type": None, "factor": 2.0}}, ("linear", 256)),
        ("llama", {"rope_scaling": {"rope_type": "linear", "type": "yarn", "factor": 2.0}}, ("linear", 256)),
        ("llama", {"rope_scaling": {**YARN, "beta_fast": None, "attention_factor": None}}, ("yarn", 256)),
        ("qwen2", {"layer_types": ["full_attention"] * 2}, None),
        ("qwen2", {"layer_types": None}, None),
        ("phi3", {"rope_scaling": {"type": "yarn", **DIVISORS}}, ("longrope", 4096)),
        (
            "phi3",
            {
                "rope_scaling": {"type": "su", "original_max_position_embeddings": 64, **DIVISORS},
                "original_max_position_embeddings": 128,
            },
            ("longrope", 128),
        ),
    ],
)
def test_what_transformers_takes_is_read_as_it_reads_it(family, change, rope, tmp_path):
    fields = {"model_type": family, **SIZES[family], **change}
    assert complaint(tmp_path, fields) == ""
    found = read_configuration(tmp_path)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path))
    model(torch.tensor([[3]]))
    theirs, ours = model.config.rope_parameters, found.text["rope"]
    assert ours["rope_type"] == theirs["rope_type"] == (rope[0] if rope else "default")
    if rope:
        length = "original_max_position_embeddings"
        assert ours[length] == theirs.get(length, 256) == rope[1]


def test_quantization_that_names_no_method_is_refused(tmp_path):
    fields = {"model_type": "llama", **TEXT}
    told = "quantization_config is {}, which names no method: remove it from config.json"
    assert complaint(tmp_path, {**fields, "quantization_config": {}}) == told
    with pytest.raises(ValueError, match="has no `quant_method`"):
        AutoQuantizationConfig.from_dict({})
    for key, value in (("quantization_config", None), ("compression_config", {})):
        assert complaint(tmp_path, {**fields, key: value}) == ""


def test_a_whole_epsilon_is_read_as_the_number_that_it_is(tmp_path):
    """transformers 5 refuses it, though it can mean nothing else."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **TEXT, "rms_norm_eps": 1}))
    epsilon = read_configuration(tmp_path).language.layernorm_epsilon
    assert (epsilon, type(epsilon)) == (1.0, float)
    assert not takes(tmp_path, {"model_type": "llama", **TEXT, "rms_norm_eps": 1})
    assert takes(tmp_path, {"model_type": "llama", **TEXT, "rms_norm_eps": epsilon})
