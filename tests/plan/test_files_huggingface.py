"""A directory's config.json says to us what it says to transformers, and what we do not understand of it is named."""

import dataclasses
import json
import re

import pytest
from huggingface_hub.errors import StrictDataclassError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import (
    AutoConfig,
    CLIPConfig,
    CLIPVisionConfig,
    Dinov2Config,
    GPT2Config,
    LlamaConfig,
    LlavaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    SiglipConfig,
    SiglipVisionConfig,
)

from neva_recipes import gpt
from neva_recipes.config import CheckpointError, ModelConfig, build
from neva_recipes.families import keys
from neva_recipes.families.gpt2 import GPT2
from neva_recipes.families.llama import LLAMA
from neva_recipes.families.mistral import MISTRAL
from neva_recipes.families.phi3 import PHI3
from neva_recipes.families.qwen2 import QWEN2
from neva_recipes.families.qwen3 import QWEN3
from neva_recipes.families.rope import resolved_rope, rope_parameters
from neva_recipes.families.towers.clip import CLIP
from neva_recipes.families.towers.dinov2 import DINOV2
from neva_recipes.families.towers.siglip import SIGLIP
from neva_recipes.plan.cost.parameters import total_parameters
from neva_recipes.plan.huggingface import llava_keys, vocabulary_rows
from neva_recipes.plan.huggingface.configuration import read_configuration
from tests.plan.published_configurations import PUBLISHED

TEXT = {
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
}
TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}

DINOV2_TOWER = {**{key: size for key, size in TOWER.items() if key != "intermediate_size"}, "mlp_ratio": 2}

GPT2_TEXT = {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 64, "vocab_size": 100}

DIRECTORIES = {
    "llama": LlamaConfig(**TEXT).to_dict(),
    "llama short": LlamaConfig(**TEXT).to_diff_dict(),
    "llama of transformers 4": {"model_type": "llama", "rope_theta": 10000.0, "rope_scaling": None, **TEXT},
    "phi3": Phi3Config(**TEXT, pad_token_id=None).to_dict(),
    "phi3 short": Phi3Config(**TEXT, pad_token_id=None).to_diff_dict(),
    "qwen2": Qwen2Config(**TEXT).to_dict(),
    "qwen2 short": Qwen2Config(**TEXT).to_diff_dict(),
    "qwen3": Qwen3Config(**TEXT).to_dict(),
    "qwen3 short": Qwen3Config(**TEXT).to_diff_dict(),
    "mistral": MistralConfig(**TEXT).to_dict(),
    "mistral short": MistralConfig(**TEXT).to_diff_dict(),
    "mistral without a window": {"model_type": "mistral", **TEXT, "sliding_window": None},
    "clip": CLIPVisionConfig(**TOWER).to_dict(),
    "clip short": CLIPVisionConfig(**TOWER).to_diff_dict(),
    "siglip": SiglipVisionConfig(**TOWER).to_dict(),
    "dinov2": Dinov2Config(**DINOV2_TOWER).to_dict(),
    "dinov2 short": Dinov2Config(**DINOV2_TOWER).to_diff_dict(),
    "whole clip": {"model_type": "clip", "vision_config": TOWER, "text_config": {}},
    "clip with two entries": {"model_type": "clip", "vision_config": TOWER, "vision_config_dict": {"hidden_size": 36}},
    "llava": LlavaConfig(
        vision_config=CLIPVisionConfig(**TOWER), text_config=LlamaConfig(**TEXT), image_token_index=99
    ).to_dict(),
    "llava short": LlavaConfig(vision_config=CLIPVisionConfig(**TOWER), text_config=LlamaConfig(**TEXT)).to_diff_dict(),
    "llava bare": {"model_type": "llava", "text_config": TEXT},
}

CHANGES = st.dictionaries(
    st.sampled_from([*TEXT, "mlp_ratio", "num_key_value_heads", "head_dim", "tie_word_embeddings"])
    | st.sampled_from(["patch_size", "image_size", "vision_feature_layer", "image_token_index"]),
    st.sampled_from([2, 3, 4, 14, 28, 32, 64, 96, 99, 100, 256, 512, -2, [-2], True, False]),
    max_size=2,
)
LLAMA_3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
PART = "partial_rotary_factor"
ROPE_KEYS = {"original_max_position_embeddings", "attention_factor", "beta_fast", "short_factor", "long_factor"}
OTHERS = st.fixed_dictionaries(
    {},
    optional={
        "vision_feature_select_strategy": st.sampled_from(["default", "full"]),
        "rope_theta": st.sampled_from([10000.0, 500000.0]),
        "rope_scaling": st.sampled_from(
            [
                None,
                {**LLAMA_3, "original_max_position_embeddings": 8192},
                {**LLAMA_3, "original_max_position_embeddings": 128},
                {"rope_type": "linear", "factor": 2.0},
                {"rope_type": "dynamic", "factor": 4},
                {"rope_type": "yarn", "factor": 4.0},
                {"rope_type": "yarn", "factor": 4.0, "beta_fast": 16, "truncate": False, "mscale_all_dim": 0},
                {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8},
            ]
        ),
    },
)


def read(folder, fields):
    (folder / "config.json").write_text(json.dumps(fields))
    return read_configuration(folder)


def assert_same_text(ours, theirs, language):
    for key in [*TEXT, "num_key_value_heads"]:
        assert ours[key] == getattr(theirs, key), key
    assert ours["head_dim"] == getattr(theirs, "head_dim", theirs.hidden_size // theirs.num_attention_heads)
    assert ours.get("sliding_window") == getattr(theirs, "sliding_window", None)
    rope = theirs.rope_parameters
    assert (ours["rope"]["rope_type"], ours["rope"]["rope_theta"]) == (rope["rope_type"], rope["rope_theta"])
    assert ours["rope"].get("factor") == rope.get("factor")
    for key in ROPE_KEYS & rope.keys():
        assert rope[key] == ours["rope"][key], key
    assert resolved_rope(language).kind == rope["rope_type"]
    told = {key: value for key, value in rope.items() if value is not None and (key, value) != (PART, 1)}
    assert told == rope_parameters(language)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(sorted(DIRECTORIES)), changes=CHANGES, others=OTHERS, nested=st.booleans())
def test_it_is_read_as_transformers_reads_it(tmp_path, kind, changes, others, nested):
    fields = json.loads(json.dumps(DIRECTORIES[kind]))
    for target in [fields, *(value for value in fields.values() if nested and isinstance(value, dict))]:
        wanted = changes | (others if "max_position_embeddings" in target or "text_config" in target else {})
        target |= {key: value for key, value in wanted.items() if key in target or key in others}
    try:
        theirs = AutoConfig.from_pretrained(str(tmp_path)) if read_or_none(tmp_path, fields) else None
    except (StrictDataclassError, ValueError, TypeError, KeyError, AttributeError):
        theirs = None
    if theirs is None:
        return
    ours = read_configuration(tmp_path)
    if ours.problems:
        return
    if ours.text is not None:
        text = theirs.text_config if kind.startswith("llava") else theirs
        assert_same_text(ours.text, text, ours.language)
        assert ours.text["tie_word_embeddings"] == theirs.tie_word_embeddings
        assert vocabulary_rows(ours).rows == text.vocab_size
    if ours.vision is not None:
        tower = theirs.vision_config if hasattr(theirs, "vision_config") else theirs
        assert ours.tower_family.model_type == tower.model_type
        for key in [*TOWER, "hidden_act", "layer_norm_eps"]:
            if key == "intermediate_size" and tower.model_type == "dinov2":
                assert ours.vision[key] == tower.hidden_size * tower.mlp_ratio
                continue
            there = getattr(tower, key)
            assert ours.vision[key] == (there[0] if isinstance(there, list) else there), key
    if kind.startswith("llava"):
        layer = theirs.vision_feature_layer
        assert ours.vision_feature_layer == (layer if isinstance(layer, int) else layer[0])
        assert ours.skips_first == (theirs.vision_feature_select_strategy == "default")
        assert ours.image_token_index == theirs.image_token_index


def read_or_none(folder, fields):
    try:
        return read(folder, fields)
    except CheckpointError:
        return None


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations_are_read_without_a_complaint(tmp_path, name):
    assert read(tmp_path, PUBLISHED[name]).problems == ()


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", 7_615_616_512),
        ("Qwen/Qwen3-0.6B", 596_049_920),
        ("mistralai/Mistral-7B-v0.1", 7_241_732_096),
        ("microsoft/Phi-3-mini-4k-instruct", 3_821_079_552),
        ("microsoft/Phi-4-mini-instruct", 3_836_021_760),
        ("openai-community/gpt2", 124_439_808),
        ("HuggingFaceTB/SmolLM2-135M", 134_515_008),
    ],
)
def test_published_configurations_have_as_many_weights_as_published(tmp_path, name, weights):
    language = read(tmp_path, PUBLISHED[name]).language
    model = ModelConfig(language=language)
    recipe = dataclasses.replace(build(gpt.pretrain("tiny")), model=model)
    assert total_parameters(recipe) == weights


def test_published_llava_has_rows_that_words_do_without(tmp_path):
    rows = vocabulary_rows(read(tmp_path, PUBLISHED["llava-hf/llava-1.5-7b-hf"]))
    assert (rows.rows, rows.text) == (32064, 32000)
    assert all(rows.takes(size, 32000) for size in (32000, 32002, 32064))
    assert not rows.takes(31999, 31999) and not rows.takes(32065, 32000) and rows.takes(32066, 32066)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (LlamaConfig, LLAMA.keys),
        (Qwen2Config, QWEN2.keys),
        (Qwen3Config, QWEN3.keys),
        (MistralConfig, MISTRAL.keys),
        (Phi3Config, PHI3.keys),
        (GPT2Config, GPT2.keys),
        (CLIPVisionConfig, CLIP.keys),
        (SiglipVisionConfig, SIGLIP.keys),
        (Dinov2Config, DINOV2.keys),
        (LlavaConfig, llava_keys.LLAVA),
        (CLIPConfig, llava_keys.WHOLE_CLIP),
        (SiglipConfig, llava_keys.WHOLE_CLIP),
    ],
)
def test_every_property_of_transformers_is_known(theirs, ours):
    """A release that brings a new one shows here, before a directory that uses it is refused."""
    saved = {field.name: 7 for field in dataclasses.fields(theirs) if field.name != "architectures"}
    unknown = [line for line in keys.problems_of(saved, ours) if "not understood" in line]
    assert unknown == []


REFUSED = {
    "quantization_config (fp8)": {"quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic"}},
    "quantization_config (bitsandbytes)": {"quantization_config": {"quant_method": "bitsandbytes"}},
    "quantization_config": {"quantization_config": {"bits": 4}},
    "compression_config": {"compression_config": {"quant_method": "compressed-tensors"}},
    "architectures is InternLM2ForCausalLM": {"architectures": ["InternLM2ForCausalLM"]},
    "auto_map has AutoModelForCausalLM": {"auto_map": {"AutoModelForCausalLM": "modeling.X"}},
    "hidden_act is gelu": {"hidden_act": "gelu"},
    "attention_bias is True": {"attention_bias": True},
    "mlp_bias is True": {"mlp_bias": True},
    "sliding_window is 4096": {"sliding_window": 4096},
    "layer_types": {"layer_types": ["full_attention", "sliding_attention"]},
    "use_parallel_residual is True": {"use_parallel_residual": True},
    "logit_scale is 0.0625": {"logit_scale": 0.0625},
    "final_logit_softcapping is 30.0": {"final_logit_softcapping": 30.0},
    "embedding_multiplier is 12": {"embedding_multiplier": 12},
    "partial_rotary_factor is 0.5": {"partial_rotary_factor": 0.5},
    "rope_type is proportional, only default, linear, dynamic, llama3, yarn and longrope": {
        "rope_parameters": {"rope_type": "proportional", "rope_theta": 10000.0}
    },
    "rope_type is su": {"rope_scaling": {"type": "su", "short_factor": [1.0] * 8, "long_factor": [1.0] * 8}},
    "mrope_section is [2, 3, 3]": {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}},
    "factor is missing, which yarn needs": {"rope_parameters": {"rope_type": "yarn", "factor": None}},
    "factor is missing, which linear needs": {"rope_scaling": {"type": "linear"}},
    "low_freq_factor is missing, which llama3 needs": {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
    "long_factor is missing, which longrope needs": {
        "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 8, "factor": 4.0}
    },
    "short_factor has 7 numbers, expected one for each of 8 frequencies": {
        "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 7, "long_factor": [1.0] * 8}
    },
    "high_freq_factor is 1, expected more than low_freq_factor, 1": {
        "rope_scaling": {**LLAMA_3, "high_freq_factor": 1.0}
    },
    "beta_fast is 0.5, expected at least beta_slow, 1": {
        "rope_scaling": {"rope_type": "yarn", "factor": 2.0, "beta_fast": 0.5}
    },
    "the family llama rotates whole heads": {
        "rope_parameters": {"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}
    },
}


@pytest.mark.parametrize("named", REFUSED)
@pytest.mark.parametrize("kind", ["llama", "llava", "original"])
def test_what_is_not_understood_is_named(tmp_path, named, kind):
    text = {"model_type": "llama", **TEXT, **REFUSED[named]}
    if kind == "llava":
        fields = {"model_type": "llava", "text_config": text, "vision_config": TOWER}
    else:
        fields = text if kind == "llama" else text | {"model_type": "llava_llama", "mm_hidden_size": 32}
    problems = read(tmp_path, fields).problems_with("language")
    assert len(problems) == 1 and named in problems[0]


SLIDING = ["full_attention", "sliding_attention"]


@pytest.mark.parametrize("place", ["", "text_config."])
@pytest.mark.parametrize(
    ("family", "change", "told"),
    [
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window is True, only False is supported"),
        ("qwen2", {"layer_types": SLIDING}, "layer_types has sliding_attention, only full_attention is supported"),
        ("qwen2", {"layer_types": "x"}, "layer_types is x, expected a list with full_attention for each layer"),
        ("qwen2", {"hidden_act": "gelu"}, "hidden_act is gelu, only silu is supported"),
        ("qwen2", {"architectures": ["Qwen2ForReward"]}, "architectures is Qwen2ForReward, expected Qwen2ForCausalLM"),
        (
            "qwen2",
            {"rope_parameters": {"rope_type": "su", "factor": 4.0}},
            "rope_parameters: rope_type is su, only default, linear, dynamic, llama3, yarn and longrope are supported",
        ),
        ("qwen3", {"use_sliding_window": True}, "use_sliding_window is True, only False is supported"),
        ("qwen3", {"attention_bias": True}, "attention_bias is True, only False is supported"),
        ("qwen3", {"architectures": ["Qwen3MoeForCausalLM"]}, "architectures is Qwen3MoeForCausalLM, expected Qwen3"),
        ("qwen3", {"num_experts": 8}, "num_experts is 8, which is not understood"),
        ("mistral", {"layer_types": SLIDING}, 'layer_types is ["full_attention", '),
        ("mistral", {"hidden_act": "gelu"}, "hidden_act is gelu, only silu is supported"),
        ("mistral", {"num_local_experts": 8}, "num_local_experts is 8, which is not understood"),
        ("qwen2", {"quantization_config": {"quant_method": "gptq"}}, "quantization_config (gptq): the weights are"),
        (
            "phi3",
            {"rope_scaling": {"type": "linear", "factor": 2.0}},
            "rope_scaling: rope_type is linear, only default and longrope are supported",
        ),
        (
            "phi3",
            {"rope_scaling": {"type": "longrope", "long_factor": [1.0] * 8, "short_factor": [1.0] * 9}},
            "rope_scaling: short_factor has 9 numbers, expected one for each of 8 frequencies",
        ),
        ("phi3", {"hidden_act": "gelu"}, "hidden_act is gelu, only silu is supported"),
        ("phi3", {"attention_bias": True}, "attention_bias is True, only False is supported"),
        ("phi3", {"full_attn_mod": 2}, "full_attn_mod is 2, only 1 is supported"),
        ("phi3", {"interpolate_factor": 4}, "interpolate_factor is 4, only 1 is supported"),
        ("phi3", {"lm_head_bias": True}, "lm_head_bias is True, only False is supported"),
        ("phi3", {"num_local_experts": 16}, "num_local_experts is 16, which is not understood"),
        ("phi3", {"auto_map": {"AutoModelForCausalLM": "m.Phi3SmallForCausalLM"}}, "auto_map has AutoModelForCausalLM"),
        ("internlm2", {"bias": True}, "bias is True, only False is supported"),
        (
            "internlm2",
            {"rope_scaling": {"type": "yarn", "factor": 2.0}},
            "rope_scaling: rope_type is yarn, only default, linear and dynamic are supported",
        ),
        ("internlm2", {"hidden_act": "gelu"}, "hidden_act is gelu, only silu is supported"),
        ("internlm2", {"architectures": ["InternLM2ForReward"]}, "architectures is InternLM2ForReward, expected"),
        ("internlm2", {"auto_map": {"AutoModel": "modeling.InternLM3Model"}}, "auto_map has AutoModel: the model is"),
        ("internlm2", {"head_dim": 64}, "head_dim is 64, which is not understood"),
        ("gpt2", {"activation_function": "relu"}, "activation_function is relu, only gelu_new is supported"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights is False, only True is supported"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True, only False is"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention is True, only False is supported"),
        ("gpt2", {"rope_theta": 1e6}, "rope_theta is 1000000.0, which is not understood"),
        ("gpt2", {"auto_map": {"AutoModelForCausalLM": "modeling.GPT2LMHeadModel"}}, "auto_map has AutoModelForCaus"),
    ],
)
def test_what_a_family_does_not_do_is_named(tmp_path, place, family, change, told):
    fields = {"model_type": family, **(GPT2_TEXT if family == "gpt2" else TEXT), **change}
    if place:
        fields = {"model_type": "llava", "text_config": fields, "vision_config": TOWER}
    (problem,) = read(tmp_path, fields).problems_with("language")
    assert problem.startswith(place + told)


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("multimodal_projector_bias", False, "projector"),
        ("projector_hidden_act", "relu", "projector"),
        ("vision_feature_select_strategy", "cls", "projector"),
        ("use_image_newline_parameter", True, "language"),
    ],
)
def test_what_is_not_understood_of_a_llava_is_named(tmp_path, key, value, part):
    problems = read(tmp_path, {**DIRECTORIES["llava"], key: value}).problems_with(part)
    assert len(problems) == 1 and f"{key} is {value}" in problems[0]


@pytest.mark.parametrize("key", ["quantization_config", "use_mask_token"])
def test_what_is_not_understood_of_a_tower_is_named(tmp_path, key):
    value = {"quantization_config": {"quant_method": "awq"}, "use_mask_token": True}[key]
    problems = read(tmp_path, {**DIRECTORIES["clip"], key: value}).problems_with("vision")
    assert len(problems) == 1 and key in problems[0]


WRONG = {
    "num_attention_heads": [0, -4, 2.5, True, "4", [4], None, 10**400],
    "num_hidden_layers": [[3], 10**9, 10_001, float("inf"), {}],
    "vocab_size": [0, 2**31],
    "rms_norm_eps": [0, -1e-5, float("nan"), float("inf"), 10**400, False, "1e-5"],
    "tie_word_embeddings": [1, "true", None],
    "rope_parameters": ["default", [], 7],
    "rope_scaling": ["x" * 5000, {"factor": "8"}, {"rope_type": 3}, {"rope_theta": 0}],
    "architectures": ["LlamaForCausalLM", [3], {"a": 1}],
    "auto_map": ["x", []],
    "model_type": [3, [], True],
}


@pytest.mark.parametrize("kind", ["llama", "llava", "original"])
@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_a_value_that_cannot_be_is_named_with_what_was_expected(tmp_path, kind, key, value):
    text = {"model_type": "llama", **TEXT, key: value}
    if kind == "llava":
        fields = {"model_type": "llava", "text_config": text, "vision_config": TOWER}
    else:
        fields = text if kind == "llama" else {"model_type": "llava_llama", **text, "mm_hidden_size": 32}
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path, fields)
    place = "text_config." if kind == "llava" else ""
    assert re.fullmatch(
        rf"{tmp_path}/config.json: {place}{key}(\.\w+)? is .{{1,60}}, expected (a|an|true or) [^:]{{4,60}}",
        str(caught.value),
    )


def test_the_words_for_a_value_that_cannot_be(tmp_path):
    for key, value, expected in (
        ("num_attention_heads", 0, "0, expected a whole number from 1 to 2147483647"),
        ("num_hidden_layers", [3], "[3], expected a whole number from 1 to 10000"),
        ("rope_parameters", "x", '"x", expected an object'),
        ("rms_norm_eps", 0, "0, expected a number above 0, at most 1e+30"),
        ("hidden_size", None, "null, expected a whole number from 1 to 2147483647"),
    ):
        with pytest.raises(CheckpointError) as caught:
            read(tmp_path, {**DIRECTORIES["llama"], key: value})
        assert str(caught.value) == f"{tmp_path}/config.json: {key} is {expected}"


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from([0, 1, 2, 64, 10**9, 10**400, "x" * 5000, "\ud800", "\x1b[31m", "default", "llama3", "llama"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["rope_type", "factor", "rope_theta", "model_type", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)


def places(fields):
    """Return every object of a configuration with each of its keys."""
    inner = [place for value in fields.values() if isinstance(value, dict) for place in places(value)]
    return [(fields, key) for key in fields] + inner


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from([*sorted(DIRECTORIES), *PUBLISHED]),
    changes=st.lists(st.tuples(st.integers(0, 10**6), ANYTHING), min_size=1, max_size=3),
)
def test_whatever_a_file_holds_it_is_read_or_refused_in_one_line(tmp_path, kind, changes):
    fields = json.loads(json.dumps({**DIRECTORIES, **PUBLISHED}[kind]))
    for number, value in changes:
        target, key = (found := places(fields))[number % len(found)]
        target[key] = json.loads(json.dumps(value))
    try:
        configuration = read(tmp_path, fields)
    except CheckpointError as error:
        assert str(error).startswith(f"{tmp_path}/config.json: ") and "\n" not in str(error)
        assert len(str(error)) < 400
        return
    sizes = [*(configuration.text or {}).items(), *(configuration.vision or {}).items()]
    for size, value in sizes:
        if size.startswith("num_") or size.endswith("_size"):
            assert type(value) is int and 1 <= value < 2**31
    assert all("\n" not in problem and len(problem) < 400 for _, problem in configuration.problems)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"model_type": "mamba"}',
        '{"model_type": "llava", "text_config": {"model_type": "mamba"}}',
        '{"model_type": "llava", "text_config": {}, "vision_feature_layer": [-2, -5]}',
        '{"model_type": "llava", "text_config": {}, "vision_config": {"model_type": "pixtral"}}',
    ],
)
def test_what_cannot_be_used(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError):
        read_configuration(tmp_path)
