"""A directory's config.json is told apart from a recipe exactly as the worker does it, with transformers."""

import json

import pytest
from huggingface_hub.errors import StrictDataclassError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, SiglipVisionConfig

from neva_model.checkpoints.huggingface import configuration as worker
from neva_recipes.config import CheckpointError, LanguageConfig, ModelConfig, ProjectorConfig, VisionConfig
from neva_recipes.plan._huggingface import compare_part, read_configuration, vocabulary_sizes

LANGUAGE = LanguageConfig(
    num_layers=2,
    hidden_size=64,
    ffn_hidden_size=96,
    num_attention_heads=4,
    num_query_groups=4,
    vocab_size=100,
    max_position_embeddings=256,
)
VISION = VisionConfig(
    num_layers=3, hidden_size=32, ffn_hidden_size=64, num_attention_heads=2, image_size=28, patch_size=14
)
MODEL = ModelConfig(language=LANGUAGE, vision=VISION, projector=ProjectorConfig())

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

DIRECTORIES = {
    "llama": LlamaConfig(**TEXT).to_dict(),
    "llama short": LlamaConfig(**TEXT).to_diff_dict(),
    "llama of transformers 4": {"model_type": "llama", "rope_theta": 10000.0, "rope_scaling": None, **TEXT},
    "clip": CLIPVisionConfig(**TOWER).to_dict(),
    "clip short": CLIPVisionConfig(**TOWER).to_diff_dict(),
    "siglip": SiglipVisionConfig(**TOWER).to_dict(),
    "whole clip": {"model_type": "clip", "vision_config": TOWER, "text_config": {}},
    "llava": LlavaConfig(
        vision_config=CLIPVisionConfig(**TOWER), text_config=LlamaConfig(**TEXT), image_token_index=99
    ).to_dict(),
    "llava short": LlavaConfig(vision_config=CLIPVisionConfig(**TOWER), text_config=LlamaConfig(**TEXT)).to_diff_dict(),
    "llava bare": {"model_type": "llava", "text_config": TEXT},
    "original llava": {
        "model_type": "llava_llama",
        **TEXT,
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_hidden_size": 32,
    },
}

CHANGES = st.dictionaries(
    st.sampled_from([*TEXT, "num_key_value_heads", "head_dim", "tie_word_embeddings", "attention_bias", "mlp_bias"])
    | st.sampled_from(
        ["patch_size", "image_size", "vision_feature_layer", "image_token_index", "mm_vision_select_layer"]
    ),
    st.sampled_from([2, 3, 4, 14, 28, 32, 64, 96, 99, 100, 256, 512, -2, True, False]),
    max_size=2,
)
OTHERS = st.fixed_dictionaries(
    {},
    optional={
        "hidden_act": st.sampled_from(["silu", "gelu", "quick_gelu"]),
        "vision_feature_select_strategy": st.sampled_from(["default", "full"]),
        "mm_vision_select_feature": st.sampled_from(["patch", "cls_patch"]),
        "rope_theta": st.sampled_from([10000.0, 500000.0]),
        "rope_scaling": st.sampled_from(
            [
                None,
                {"type": "linear", "factor": 2.0},
                {
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8192,
                },
                {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 2.0},
            ]
        ),
    },
)

COMPARE = {
    "language": lambda found: worker.compare_language(found, LANGUAGE),
    "vision": lambda found: worker.compare_vision(found, VISION),
    "projector": lambda found: worker.compare_projector(found, VISION),
}


@pytest.mark.parametrize("part", COMPARE)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(sorted(DIRECTORIES)), changes=CHANGES, others=OTHERS, nested=st.booleans())
def test_the_verdict_is_the_workers(tmp_path, part, kind, changes, others, nested):
    fields = json.loads(json.dumps(DIRECTORIES[kind]))
    targets = [fields, *(value for value in fields.values() if nested and isinstance(value, dict))]
    for target in targets:
        target |= {key: value for key, value in (changes | others).items() if key in target or key in others}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    try:
        theirs = worker.read_configuration(tmp_path)
    except (CheckpointError, StrictDataclassError):
        # transformers checks more of a configuration than concerns a recipe.
        return
    ours = read_configuration(tmp_path)
    first = None
    try:
        COMPARE[part](theirs)
    except CheckpointError as problem:
        first = str(problem)
    found = list(compare_part(ours, MODEL, part))
    assert bool(found) == (first is not None), (first, found)
    if found and found[0].field:
        assert found[0].field in first
    if part == "language" and theirs.text is not None:
        assert vocabulary_sizes(ours)[0] == theirs.text.vocab_size
        assert (theirs.image_token_index is None) == (len(vocabulary_sizes(ours)) == 1)


@pytest.mark.parametrize("kind", DIRECTORIES)
def test_every_difference_is_told(tmp_path, kind):
    fields = DIRECTORIES[kind]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    ours, theirs = read_configuration(tmp_path), worker.read_configuration(tmp_path)
    assert (ours.text is None, ours.vision is None) == (theirs.text is None, theirs.vision is None)
    changed = VisionConfig(num_layers=9, hidden_size=36, ffn_hidden_size=65, num_attention_heads=3, image_size=42)
    if theirs.vision is not None and kind != "llava bare":
        found = {
            mismatch.field: mismatch.value
            for mismatch in compare_part(
                ours, ModelConfig(language=LANGUAGE, vision=changed, projector=ProjectorConfig()), "vision"
            )
        }
        assert found.items() >= {"model.vision.num_layers": 3, "model.vision.image_size": 28}.items()
        assert {
            "model.vision.hidden_size",
            "model.vision.ffn_hidden_size",
            "model.vision.num_attention_heads",
        } <= found.keys()


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"model_type": "qwen2"}',
        '{"model_type": "clip"}',
        '{"model_type": "llava", "text_config": {"model_type": "qwen2"}}',
    ],
)
def test_what_neither_can_use(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    for read in (read_configuration, worker.read_configuration):
        with pytest.raises(CheckpointError):
            read(tmp_path)
