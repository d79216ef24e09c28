"""Weights come from every layout of Hugging Face directory, and damaged or foreign ones are named."""

import json

import pytest
import torch
from model_cases import (
    DINOV2,
    VOCABULARY,
    changed,
    findings_of_source,
    hf_llama,
    hf_llava,
    llava_recipe,
    pretrained,
    text_recipe,
    tower_config,
)
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPVisionConfig, SiglipModel

from neva_model.checkpoints.huggingface import is_huggingface_directory
from neva_model.checkpoints.huggingface.pretrained import load_pretrained
from neva_model.model import build_model
from neva_model.model.vision import encode_images
from neva_recipes.config import CheckpointError
from neva_recipes.families.llama import LLAMA
from neva_recipes.plan.huggingface.names import core_weight, language_spellings

PARTS = ("language", "vision", "projector")


def build(recipe):
    model = build_model(recipe, pre_process=True, post_process=True)
    return model, load_pretrained(model, recipe)


@pytest.fixture
def llava(tmp_path):
    hf_llava(llava_recipe()).save_pretrained(tmp_path / "llava")
    return tmp_path / "llava"


@pytest.fixture
def shards(tmp_path):
    hf_llava(llava_recipe()).save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    return tmp_path / "shards"


def rename(directory, replacements):
    """Rewrite the names of a directory's tensors."""
    tensors = load_file(directory / "model.safetensors")
    for old, new in replacements:
        tensors = {new + name.removeprefix(old) if name.startswith(old) else name: t for name, t in tensors.items()}
    save_file(tensors, directory / "model.safetensors")
    return tensors


SPELLINGS = {
    "transformers 5, in memory": [
        ("language_model.lm_head.", "lm_head."),
        ("language_model.model.", "model.language_model."),
        ("vision_tower.", "model.vision_tower."),
        ("multi_modal_projector.", "model.multi_modal_projector."),
    ],
    "transformers 4": [("vision_tower.", "vision_tower.vision_model.")],
    "original": [
        ("language_model.", ""),
        ("vision_tower.", "model.vision_tower.vision_tower.vision_model."),
        ("multi_modal_projector.linear_1.", "model.mm_projector.0."),
        ("multi_modal_projector.linear_2.", "model.mm_projector.2."),
    ],
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_the_names_is_read(spelling, llava):
    recipe = pretrained(llava_recipe(), llava)
    expected, lines = build(recipe)
    assert [line.split(":")[0] for line in lines] == list(PARTS)
    assert all(str(llava) in line and "LlavaForConditionalGeneration" in line for line in lines)
    rename(llava, SPELLINGS[spelling])
    model, _ = build(changed(recipe, {"trainer.seed": 5}))
    for (name, weight), other in zip(expected.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(weight, other), name


def test_directories_of_the_original_llava_are_read(llava):
    config = json.loads((llava / "config.json").read_text())
    original = config["text_config"] | {"model_type": "llava", "architectures": ["LlavaLlamaForCausalLM"]}
    original |= {"mm_vision_select_layer": -2, "mm_vision_select_feature": "patch", "mm_projector_type": "mlp2x_gelu"}
    sources = {f"model.{part}.from_pretrained": str(llava) for part in ("language", "projector")}
    recipe = llava_recipe(sources | {"model.language.vocab_size": VOCABULARY + 1})
    expected, _ = build(recipe)
    tensors = rename(llava, SPELLINGS["original"])
    (llava / "config.json").write_text(json.dumps(original))
    model, lines = build(changed(recipe, {"trainer.seed": 5}))
    assert all("LlavaLlamaForCausalLM" in line for line in lines)
    for part in ("language", "projector"):
        pairs = zip(getattr(model, part).parameters(), getattr(expected, part).parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)
    assert torch.equal(model.projector[2].weight, tensors["model.mm_projector.2.weight"])


def test_pytorch_shards_are_read_like_safetensors(llava, shards):
    expected, _ = build(pretrained(llava_recipe(), llava))
    index = json.loads((shards / "model.safetensors.index.json").read_text())
    files = set(index["weight_map"].values())
    assert len(files) > 3
    model, lines = build(pretrained(llava_recipe(), shards))
    assert f"{len(files)} safetensors files" in lines[0]
    for file in files:
        torch.save(load_file(shards / file), shards / file.replace("safetensors", "bin"))
        (shards / file).unlink()
    weight_map = {name: file.replace("safetensors", "bin") for name, file in index["weight_map"].items()}
    (shards / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (shards / "model.safetensors.index.json").unlink()
    again, _ = build(pretrained(changed(llava_recipe(), {"trainer.seed": 5}), shards))
    for one, other, third in zip(expected.parameters(), model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other) and torch.equal(one, third)


@pytest.mark.parametrize("kind", ["mlp2x_gelu", "linear", "mlp3x_gelu"])
def test_projector_of_the_original_stage_1(kind, tmp_path):
    recipe = changed(
        llava_recipe(),
        {"model.projector.mm_projector_type": kind, "model.projector.from_pretrained": str(tmp_path)},
    )
    layers = {"linear": [""], "mlp2x_gelu": ["0.", "2."], "mlp3x_gelu": ["0.", "2.", "4."]}[kind]
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for number, layer in enumerate(layers):
        shape = (32, 16) if number == 0 else (32, 32)
        tensors[f"model.mm_projector.{layer}weight"] = torch.randn(shape, generator=generator)
        tensors[f"model.mm_projector.{layer}bias"] = torch.randn(32, generator=generator)
    torch.save(tensors, tmp_path / "mm_projector.bin")
    model, lines = build(recipe)
    assert len(lines) == 1 and lines[0].startswith("projector: loaded from")
    assert all(torch.equal(a, b) for a, b in zip(model.projector.parameters(), tensors.values(), strict=True))
    wrong = {"linear": "mlp2x_gelu", "mlp2x_gelu": "mlp3x_gelu", "mlp3x_gelu": "linear"}[kind]
    found = {1: "1 layers", 2: "two layers", 3: "3 layers"}[len(layers)]
    with pytest.raises(CheckpointError, match=f"has {found}.*mm_projector_type={wrong}"):
        build(changed(recipe, {"model.projector.mm_projector_type": wrong}))


def test_parts_come_from_directories_of_their_own(tmp_path):
    recipe = llava_recipe()
    llama = hf_llama(recipe)
    llama.save_pretrained(tmp_path / "llama")
    vision = recipe.model.vision
    tower = CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=14
    )
    text = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    clip = CLIPModel(CLIPModel.config_class(vision_config=tower.to_dict(), text_config=text))
    clip.save_pretrained(tmp_path / "clip")
    assert vision.hidden_size == 16
    model, lines = build(
        changed(
            recipe,
            {
                "model.language.from_pretrained": str(tmp_path / "llama"),
                "model.vision.from_pretrained": str(tmp_path / "clip"),
            },
        )
    )
    assert len(lines) == 2 and "CLIPModel" in lines[1]
    assert torch.equal(model.language.output_layer.weight[:VOCABULARY], llama.lm_head.weight)
    theirs = dict(clip.vision_model.named_parameters())
    for name, weight in model.vision.named_parameters():
        assert torch.equal(weight, theirs[name]), name


ATTENTION = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}
"""Names of DINOv2's attention as published, and as transformers 5 has them in memory."""


@torch.no_grad()
@pytest.mark.parametrize("spelling", ["published", "in memory"])
@pytest.mark.parametrize("prefix", ["", "vision_tower."])
def test_dinov2_is_read_in_both_of_its_spellings(spelling, prefix, tmp_path):
    recipe = llava_recipe({**DINOV2, "model.vision.position_image_size": 56})
    whole = hf_llava(recipe)
    (whole if prefix else whole.model.vision_tower).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    for published, module in ATTENTION.items():
        old, new = (module, published) if spelling == "published" else (published, module)
        tensors = {name.replace(old, new) if "layer." in name else name: tensor for name, tensor in tensors.items()}
    key = ATTENTION["attention.attention.key"] if spelling == "in memory" else "attention.attention.key"
    assert f"{prefix}encoder.layer.2.{key}.weight" in tensors
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    recipe = changed(recipe, {"model.vision.from_pretrained": str(tmp_path)})
    assert findings_of_source(recipe) == []
    model, _ = build(recipe)
    theirs = dict(whole.model.vision_tower.named_parameters())
    for name, weight in model.vision.named_parameters():
        assert torch.equal(weight, theirs.pop(name)), name
    assert not theirs
    for number, change in enumerate(({"position_image_size": 70}, {"position_image_size": None})):
        wrong = changed(recipe, {f"model.vision.{name}": value for name, value in change.items()})
        (finding,) = findings_of_source(wrong)
        assert "image_size is 56" in finding.message, number
        assert finding.remedies[0] == {"model.vision.position_image_size": 56}


@torch.no_grad()
def test_a_tower_comes_out_of_a_whole_siglip_2(tmp_path):
    """Those of fixed resolution are published as SiglipModel, with the vocabulary and the projection of SigLIP 2."""
    kind = {"model.vision.vision_model_type": "siglip", "model.vision.hidden_act": "gelu_pytorch_tanh"}
    recipe = llava_recipe({**kind, "model.vision.from_pretrained": str(tmp_path)})
    text = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    tower = {**tower_config(recipe.model.vision).to_dict(), "vision_use_head": True}
    config = SiglipModel.config_class(
        vision_config=tower, text_config={**text, "vocab_size": 99, "projection_size": 16}
    )
    oracle = SiglipModel(config).eval()
    oracle.save_pretrained(tmp_path)
    assert findings_of_source(recipe) == []
    model, lines = build(recipe)
    assert len(lines) == 1 and "SiglipModel" in lines[0]
    images = torch.randn(2, 3, 28, 28)
    expected = oracle.vision_model(images, output_hidden_states=True).hidden_states[-2]
    assert (encode_images(model.vision, recipe.model.vision, images) - expected).abs().max() <= 1e-5


def test_new_image_tokens_start_as_the_mean(tmp_path):
    recipe = llava_recipe({"model.use_im_start_end": True, "model.language.vocab_size": VOCABULARY + 2})
    llama = hf_llama(llava_recipe())
    llama.save_pretrained(tmp_path)
    model, lines = build(changed(recipe, {"model.language.from_pretrained": str(tmp_path)}))
    assert "2 new tokens" in lines[0]
    embeddings, logits = model.language.embedding.word_embeddings.weight, model.language.output_layer.weight
    for ours, theirs in ((embeddings, llama.model.embed_tokens.weight), (logits, llama.lm_head.weight)):
        assert torch.equal(ours[:VOCABULARY], theirs)
        torch.testing.assert_close(ours[VOCABULARY : VOCABULARY + 2], theirs.mean(0).expand(2, -1))
        assert (ours[VOCABULARY + 2 :] == 0).all()


def test_sources_of_other_kinds_are_left_alone(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    assert not is_huggingface_directory(tmp_path / "run")
    _, lines = build(pretrained(llava_recipe(), tmp_path / "run"))
    assert lines == []


@pytest.mark.parametrize(
    ("source", "message"),
    [("./nowhere", "no such directory"), ("nowhere", "no such directory"), ("owner/name", "cannot be downloaded")],
)
def test_missing_sources_are_named(source, message, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=f"^{source}: .*{message}"):
        build(llava_recipe({"model.language.from_pretrained": source}))


FIELDS = {
    "num_layers": ("num_hidden_layers is 4", {"model.language.num_layers": 2}),
    "ffn_hidden_size": ("intermediate_size is 48", {"model.language.ffn_hidden_size": 64}),
    "hidden_size": ("hidden_size is 32", {"model.language.hidden_size": 64}),
    "num_query_groups": ("num_key_value_heads is 2", {"model.language.num_query_groups": 4}),
    "kv_channels": ("head_dim is 8", {"model.language.kv_channels": 16}),
    "layernorm_epsilon": ("rms_norm_eps is 1e-05", {"model.language.layernorm_epsilon": 1e-6}),
    "rotary_base": ("rope_theta is 10000", {"model.language.rotary_base": 500000.0}),
    "rope_scaling_factor": ("rope factor is None", {"model.language.rope_scaling_factor": 8.0}),
    "vocab_size": ("vocab_size is 101", {"model.language.vocab_size": 90}),
    "share_embeddings": ("tie_word_embeddings is False", {"model.language.share_embeddings_and_output_weights": True}),
    "max_position_embeddings": ("max_position_embeddings is 64", {"model.language.max_position_embeddings": 128}),
    "vision layers": ("num_hidden_layers is 3", {"model.vision.num_layers": 4}),
    "vision activation": ("hidden_act is quick_gelu", {"model.vision.hidden_act": "gelu"}),
    "image_size": ("image_size is 28", {"model.vision.image_size": 56}),
    "vision type": ("model_type is clip_vision_model", {"model.vision.vision_model_type": "siglip"}),
    "select layer": ("vision_feature_layer is -2", {"model.vision.vision_select_layer": -1}),
    "class token": ("vision_feature_select_strategy is default", {"model.vision.vision_select_feature": "cls_patch"}),
    "projector": ("two layers with gelu", {"model.projector.mm_projector_type": "linear"}),
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_recipe_of_another_shape_is_told_the_field_and_both_values(field, llava):
    message, changes = FIELDS[field]
    recipe = pretrained(llava_recipe(changes), llava)
    ((path, value),) = changes.items()
    with pytest.raises(CheckpointError) as caught:
        build(recipe)
    text = str(caught.value)
    assert message in text and str(llava) in text and f"{path}={value}" in text
    assert "\n" not in text


def test_the_selected_layer_may_be_counted_from_either_end(llava):
    model, _ = build(pretrained(llava_recipe({"model.vision.vision_select_layer": 2}), llava))
    assert model.model_config.vision.vision_select_layer == 2


def fails(recipe, *words):
    with pytest.raises(CheckpointError) as caught:
        build(recipe)
    text = str(caught.value)
    assert all(str(word) in text for word in words), text
    assert "\n" not in text


def test_damaged_directories_are_named(shards, tmp_path):
    recipe = pretrained(llava_recipe(), shards)
    index = shards / "model.safetensors.index.json"
    contents = json.loads(index.read_text())
    shard = shards / contents["weight_map"]["language_model.model.layers.2.mlp.down_proj.weight"]
    whole = shard.read_bytes()

    shard.write_bytes(whole[:-10])
    fails(recipe, shard, "damaged or incomplete")
    shard.write_bytes(whole[:4])
    fails(recipe, shard, "damaged or incomplete")
    shard.unlink()
    fails(recipe, shard, "is missing")
    tensors = load_file(shards / contents["weight_map"]["language_model.lm_head.weight"])
    save_file({"other": torch.zeros(1)}, shard)
    fails(recipe, shards, "other is not understood")
    save_file({"language_model.lm_head.weight": tensors["language_model.lm_head.weight"]}, shard)
    fails(recipe, shard, "holds language_model.lm_head.weight, which ", " holds too")
    save_file({"language_model.model.rotary_emb.inv_freq": torch.zeros(4)}, shard)
    fails(recipe, shards, "has no tensor language_model.model.layers.2.")
    shard.write_bytes(whole)
    build(recipe)

    index.write_text("{broken")
    fails(recipe, index, "cannot be read")
    index.unlink()
    fails(recipe, index, "is missing")
    index.write_text(json.dumps(contents))
    fails(llava_recipe({"model.language.from_pretrained": str(shards / "config.json")}), "is a file")
    (shards / "config.json").write_text("[]")
    fails(recipe, shards / "config.json", "cannot be read")
    (shards / "config.json").write_text(json.dumps({"model_type": "llama", "rms_norm_eps": "2"}))
    fails(recipe, shards, 'rms_norm_eps is "2", expected a number')
    (shards / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    fails(recipe, shards, "model_type is mamba", "expected llama")


def test_damaged_pytorch_files_are_named(tmp_path):
    recipe = llava_recipe({"model.projector.from_pretrained": str(tmp_path)})
    path = tmp_path / "mm_projector.bin"
    biases = {f"mm_projector.{number}.bias": torch.zeros(32) for number in (0, 2)}
    weights = {"mm_projector.0.weight": torch.zeros(32, 8), "mm_projector.2.weight": torch.zeros(32, 32)}
    torch.save(weights | biases, path)
    fails(recipe, tmp_path, "its projector reads features of width 8", "model.vision.hidden_size=16")
    torch.save(weights | biases | {"mm_projector.2.weight": torch.zeros(32, 31)}, path)
    fails(recipe, path, "mm_projector.2.weight has shape [32, 31]", "[32, 32]")
    path.write_bytes(path.read_bytes()[:-20])
    fails(recipe, path, "damaged or incomplete")
    path.write_bytes(b"")
    fails(recipe, path, "damaged or incomplete")


def test_directories_without_the_part_are_named(tmp_path):
    hf_llama(text_recipe()).save_pretrained(tmp_path)
    fails(
        llava_recipe({"model.vision.from_pretrained": str(tmp_path)}), tmp_path, "LlamaForCausalLM", "no vision tower"
    )
    fails(llava_recipe({"model.projector.from_pretrained": str(tmp_path)}), tmp_path, "no projector")


def test_transformer_engine_keeps_norms_under_other_names():
    spelling = language_spellings(LLAMA)[0]
    for engine, plain in (
        ("self_attention.linear_qkv.layer_norm_weight", "input_layernorm.weight"),
        ("mlp.linear_fc1.layer_norm_weight", "pre_mlp_layernorm.weight"),
    ):
        _, names = core_weight(LLAMA, f"decoder.layers.7.{engine}", spelling)
        assert names == core_weight(LLAMA, f"decoder.layers.7.{plain}", spelling)[1]
        assert names[0].startswith("model.layers.7.")
