"""Directories that say something unusual: computed as transformers does, or refused by the name of what is unusual."""

import json
import shutil

import pytest
import torch
from model_cases import (
    VOCABULARY,
    batch,
    changed,
    findings_of_source,
    hf_llama,
    hf_llava,
    llava_recipe,
    load_source,
    pretrained,
    text_recipe,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlavaForConditionalGeneration

from neva_recipes.config import CheckpointError
from neva_recipes.families import image_length

SIGLIP = {"model.vision.vision_model_type": "siglip", "model.vision.hidden_act": "gelu_pytorch_tanh"}
TIED = "model.language.share_embeddings_and_output_weights"


def configure(directory, change):
    fields = json.loads((directory / "config.json").read_text())
    change(fields)
    (directory / "config.json").write_text(json.dumps(fields))


def retensor(directory, change):
    """Change the tensors of a directory, by a function of all of them."""
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


@torch.no_grad()
def assert_same_logits(recipe, directory, oracle):
    recipe = pretrained(recipe, directory)
    assert findings_of_source(recipe) == []
    model = load_source(recipe)
    oracle = oracle.from_pretrained(directory, attn_implementation="eager").eval()
    vision = recipe.model.vision
    case = batch([1, 2] if vision else [0, 0], 24, tokens_per_image=image_length(vision) if vision else 4)
    tokens = case["tokens"]
    images = {"pixel_values": case["images"]} if vision else {}
    expected = oracle(input_ids=tokens.where(tokens != -200, VOCABULARY), **images).logits[..., :VOCABULARY]
    ours = model(tokens, case["position_ids"], *([case["images"]] if vision else []))[..., :VOCABULARY]
    assert expected.abs().max() > 0.5
    assert (ours - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("strategy", ["default", "full"])
@pytest.mark.parametrize("vision", ["clip", "siglip"])
def test_the_first_token_is_left_out_where_transformers_leaves_it_out(strategy, vision, tmp_path):
    recipe = llava_recipe(SIGLIP if vision == "siglip" else {})
    hf_llava(recipe).save_pretrained(tmp_path)
    configure(tmp_path, lambda fields: fields.update(vision_feature_select_strategy=strategy))
    feature = {
        "clip": {"default": "patch", "full": "cls_patch"},
        "siglip": {"default": "skip_first", "full": "patch"},
    }[vision][strategy]
    right = changed(recipe, {"model.vision.vision_select_feature": feature})
    assert_same_logits(right, tmp_path, LlavaForConditionalGeneration)
    other = "patch" if feature != "patch" else {"clip": "cls_patch", "siglip": "skip_first"}[vision]
    wrong = pretrained(changed(recipe, {"model.vision.vision_select_feature": other}), tmp_path)
    (finding,) = findings_of_source(wrong)
    # One token more may need a longer sequence beside it.
    assert finding.remedies[0]["model.vision.vision_select_feature"] == feature
    with pytest.raises(CheckpointError, match=f"strategy is {strategy}.*vision_select_feature={other}"):
        load_source(wrong)


def test_one_file_goes_before_an_old_index(tmp_path):
    recipe = text_recipe()
    hf_llama(recipe).save_pretrained(tmp_path / "old", max_shard_size="20KB")
    torch.manual_seed(1)
    newer = AutoModelForCausalLM.from_config(hf_llama(recipe).config)
    torch.nn.init.normal_(newer.lm_head.weight)
    newer.save_pretrained(tmp_path / "new")
    shutil.copy(tmp_path / "new/model.safetensors", tmp_path / "old")
    assert_same_logits(recipe, tmp_path / "old", AutoModelForCausalLM)
    for shard in (tmp_path / "old").glob("model-*"):
        shard.unlink()
    assert_same_logits(recipe, tmp_path / "old", AutoModelForCausalLM)


@pytest.mark.parametrize("stored", ["safetensors", "bin"])
def test_tied_weights_that_differ_are_not_tied(stored, tmp_path):
    recipe = text_recipe()
    hf_llama(recipe).save_pretrained(tmp_path)
    configure(tmp_path, lambda fields: fields.update(tie_word_embeddings=True))
    if stored == "bin":
        torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
        (tmp_path / "model.safetensors").unlink()
    assert_same_logits(recipe, tmp_path, AutoModelForCausalLM)
    wrong = pretrained(changed(recipe, {TIED: True}), tmp_path)
    (finding,) = findings_of_source(wrong)
    assert finding.remedies == ({TIED: False},) and "lm_head.weight is not embed_tokens.weight" in finding.message
    with pytest.raises(CheckpointError, match=r"lm_head\.weight is not embed_tokens\.weight"):
        load_source(wrong)


def test_tied_weights_that_are_the_same_are_tied(tmp_path):
    recipe = text_recipe({TIED: True})
    model = hf_llama(recipe)
    model.save_pretrained(tmp_path)
    retensor(tmp_path, lambda tensors: tensors.update({"lm_head.weight": model.lm_head.weight.detach().clone()}))
    assert_same_logits(recipe, tmp_path, AutoModelForCausalLM)


@pytest.mark.parametrize("place", ["top", "text_config"])
def test_a_llava_is_tied_by_either_of_its_two_words(place, tmp_path):
    recipe = llava_recipe({TIED: True})
    hf_llava(recipe).save_pretrained(tmp_path)

    def tie(fields):
        fields["tie_word_embeddings"] = place == "top"
        fields["text_config"]["tie_word_embeddings"] = place != "top"

    configure(tmp_path, tie)
    assert_same_logits(recipe, tmp_path, LlavaForConditionalGeneration)


def test_a_list_of_one_feature_layer_is_no_list(tmp_path):
    recipe = llava_recipe()
    hf_llava(recipe).save_pretrained(tmp_path)
    configure(tmp_path, lambda fields: fields.update(vision_feature_layer=[-2]))
    assert_same_logits(recipe, tmp_path, LlavaForConditionalGeneration)


def test_image_marks_of_the_original_layout_count(tmp_path):
    recipe = llava_recipe()
    hf_llava(recipe).save_pretrained(tmp_path)

    def as_original(fields):
        text = fields["text_config"] | {"model_type": "llava", "mm_use_im_start_end": True}
        fields.clear()
        fields.update(text, architectures=["LlavaLlamaForCausalLM"], mm_projector_type="mlp2x_gelu")

    configure(tmp_path, as_original)
    names = (("language_model.", ""), ("multi_modal_projector.linear_1", "model.mm_projector.0"))
    names += (("multi_modal_projector.linear_2", "model.mm_projector.2"),)

    def rename(tensors):
        for name in list(tensors):
            tensor = tensors.pop(name)
            for old, new in names:
                name = new + name.removeprefix(old) if name.startswith(old) else name
            if not name.startswith("vision_tower"):
                tensors[name] = tensor

    retensor(tmp_path, rename)
    sources = {f"model.{part}.from_pretrained": str(tmp_path) for part in ("language", "projector")}
    recipe = changed(recipe, sources | {"model.language.vocab_size": VOCABULARY + 1})
    with pytest.raises(CheckpointError, match=r"mm_use_im_start_end is True.*model\.use_im_start_end=False"):
        load_source(recipe)
    told = findings_of_source(recipe)
    assert told and all(finding.remedies[0]["model.use_im_start_end"] is True for finding in told)
    marked = changed(recipe, {"model.use_im_start_end": True})
    assert findings_of_source(marked) == []
    load_source(marked)


LAYER = "language_model.model.layers.1.self_attn.q_proj"


def fp8(tensors):
    for name in [name for name in tensors if ".layers." in name and "proj" in name and "language" in name]:
        scale = tensors[name].abs().max() / 448
        tensors[name] = (tensors[name] / scale).to(torch.float8_e4m3fn)
        tensors[f"{name}_scale"] = scale.reshape(1)


def int8(tensors):
    weight = tensors[f"{LAYER}.weight"]
    tensors[f"{LAYER}.SCB"] = weight.abs().amax(1)
    tensors[f"{LAYER}.weight"] = (weight / tensors[f"{LAYER}.SCB"][:, None] * 127).round().to(torch.int8)


def packed(tensors):
    tensors[f"{LAYER}.weight_packed"] = tensors.pop(f"{LAYER}.weight").to(torch.int32)


def added(name):
    return lambda tensors: tensors.update({name: torch.ones(32)})


STRANGE = {
    "fp8": (fp8, "of type F8_E4M3"),
    "int8": (int8, f"{LAYER}.weight is of type I8"),
    "packed": (packed, f"{LAYER}.weight_packed is of type I32"),
    "scale alone": (added(f"{LAYER}.weight_scale"), f"{LAYER}.weight_scale is not understood"),
    "bias": (added(f"{LAYER}.bias"), f"{LAYER}.bias is not understood"),
    "adapter": (added(f"{LAYER}.lora_A.weight"), f"{LAYER}.lora_A.weight is not understood"),
    "norm of queries": (added("language_model.model.layers.0.self_attn.q_norm.weight"), "q_norm.weight is not"),
    "layer too many": (added("language_model.model.layers.4.input_layernorm.weight"), "layers.4.input_layernorm"),
    "image newline": (added("image_newline"), "image_newline is not understood"),
    "tower": (added("vision_tower.encoder.layers.0.layer_scale1"), "layer_scale1 is not understood"),
    "projector": (added("multi_modal_projector.linear_3.weight"), "linear_3.weight is not understood"),
    "flags": (lambda tensors: tensors.update({f"{LAYER}.used": torch.ones(2, dtype=torch.bool)}), "of type BOOL"),
}


@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize("stored", ["safetensors", "bin"])
def test_tensors_that_are_not_understood_are_named(strange, stored, tmp_path):
    change, named = STRANGE[strange]
    recipe = pretrained(llava_recipe(), tmp_path)
    hf_llava(llava_recipe()).save_pretrained(tmp_path)
    retensor(tmp_path, change)
    if stored == "bin":
        torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
        (tmp_path / "model.safetensors").unlink()
        named = named.replace("F8_E4M3", "float8_e4m3fn")
    told = findings_of_source(recipe)
    assert told and all(named in finding.message and "\n" not in finding.message for finding in told)
    with pytest.raises(CheckpointError) as caught:
        load_source(recipe)
    assert named in str(caught.value)


def test_tensors_that_compute_nothing_are_passed_over(tmp_path):
    recipe = llava_recipe()
    hf_llava(recipe).save_pretrained(tmp_path)
    retensor(tmp_path, added("language_model.model.layers.0.self_attn.rotary_emb.inv_freq"))
    positions = {"vision_tower.vision_model.embeddings.position_ids": torch.arange(5)[None]}
    retensor(tmp_path, lambda tensors: tensors.update(positions))
    assert_same_logits(recipe, tmp_path, LlavaForConditionalGeneration)


def refuse_adapter(directory):
    (directory / "adapter_config.json").write_text('{"peft_type": "LORA"}')


DIRECTORIES = {
    "quantization": (
        lambda path: configure(path, lambda fields: fields.update(quantization_config={"quant_method": "fp8"})),
        "quantization_config (fp8)",
    ),
    "adapter": (refuse_adapter, "adapter_config.json says that an adapter lies there"),
    "bias of the projector": (
        lambda path: configure(path, lambda fields: fields.update(multimodal_projector_bias=False)),
        "multimodal_projector_bias is False",
    ),
    "InternLM2": (
        lambda path: configure(
            path, lambda fields: fields["text_config"].update(architectures=["InternLM2ForCausalLM"])
        ),
        "text_config.architectures is InternLM2ForCausalLM",
    ),
    "several layers": (
        lambda path: configure(path, lambda fields: fields.update(vision_feature_layer=[-2, -1])),
        "vision_feature_layer is [-2, -1]",
    ),
    "weights of embeddings alone": (
        lambda path: retensor(path, lambda tensors: tensors.pop("language_model.lm_head.weight")),
        "has no tensor language_model.lm_head.weight",
    ),
}


@pytest.mark.parametrize("case", DIRECTORIES)
def test_directories_that_are_not_understood_are_named(case, tmp_path):
    change, named = DIRECTORIES[case]
    hf_llava(llava_recipe()).save_pretrained(tmp_path)
    change(tmp_path)
    recipe = pretrained(llava_recipe(), tmp_path)
    told = [finding.message for finding in findings_of_source(recipe)]
    assert told and any(named in message for message in told)
    with pytest.raises(CheckpointError) as caught:
        load_source(recipe)
    assert named in str(caught.value) and str(tmp_path) in str(caught.value)
