"""The model computes what transformers computes from the same weights."""

import pytest
import torch
from model_cases import (
    DINOV2,
    IMAGE_ROW,
    VOCABULARY,
    batch,
    hf_llama,
    hf_llava,
    llava_recipe,
    pretrained,
    text_recipe,
)

from neva_model.checkpoints.huggingface.pretrained import load_pretrained
from neva_model.model import build_model
from neva_recipes.families import image_length

SHAPES = {
    "grouped": {},
    "multi-head": {"model.language.num_query_groups": 4},
    "wide heads": {"model.language.kv_channels": 16},
    "tied": {"model.language.share_embeddings_and_output_weights": True},
    "rope base": {"model.language.rotary_base": 500000.0},
    "mistral": {"model.language.family": "mistral", "model.language.sliding_window": 5},
    "qwen2": {"model.language.family": "qwen2"},
    "qwen3": {"model.language.family": "qwen3", "model.language.kv_channels": 16},
    "class token": {"model.vision.vision_select_feature": "cls_patch"},
    "last layer": {"model.vision.vision_select_layer": -1},
    "first state": {"model.vision.vision_select_layer": -4},
    "layer from the front": {"model.vision.vision_select_layer": 1},
    "siglip": {"model.vision.vision_model_type": "siglip", "model.vision.hidden_act": "gelu_pytorch_tanh"},
    "dinov2": DINOV2,
    "dinov2, last layer and class token": {
        **DINOV2,
        "model.vision.vision_select_layer": -1,
        "model.vision.vision_select_feature": "cls_patch",
    },
    "dinov2, more positions": {**DINOV2, "model.vision.position_image_size": 70},
    "dinov2, fewer positions": {**DINOV2, "model.vision.position_image_size": 14},
}
TRAINED = {
    "clip": ("embeddings.patch_embedding.weight", "encoder.layers.1.mlp.fc1.weight"),
    "dinov2": (
        "embeddings.patch_embeddings.projection.weight",
        "embeddings.position_embeddings",
        "embeddings.cls_token",
        "encoder.layer.1.mlp.fc1.weight",
        "encoder.layer.1.layer_scale2.lambda1",
    ),
}
"""Weights of each tower, by their names in transformers' class."""


def load(recipe, oracle, directory):
    oracle.save_pretrained(directory)
    recipe = pretrained(recipe, directory)
    model = build_model(recipe, pre_process=True, post_process=True)
    assert len(load_pretrained(model, recipe)) == (3 if recipe.model.vision else 1)
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_equal_those_of_transformers(shape, tmp_path):
    recipe = llava_recipe(SHAPES[shape])
    oracle = hf_llava(recipe)
    model = load(recipe, oracle, tmp_path)
    tokens_per_image = image_length(recipe.model.vision)
    for images_per_row, length in (([1, 1], 12), ([2, 0, 1], 24), ([0, 0], 7), ([3], 30)):
        case = batch(images_per_row, length, tokens_per_image=tokens_per_image)
        expected = oracle(
            input_ids=case["tokens"].where(case["tokens"] != -200, IMAGE_ROW),
            pixel_values=case["images"] if len(case["images"]) else None,
        ).logits[..., :VOCABULARY]
        logits = model(case["tokens"], case["position_ids"], case["images"])
        assert logits.shape[-1] == 128
        assert (logits[..., :VOCABULARY] - expected).abs().max() <= 1e-4
        assert logits[..., VOCABULARY:].max() < -1e30
        assert torch.equal(logits.argmax(-1), expected.argmax(-1))


@torch.no_grad()
def test_greedy_tokens_equal_those_of_transformers(tmp_path):
    recipe = llava_recipe()
    oracle = hf_llava(recipe)
    model = load(recipe, oracle, tmp_path)
    case = batch([2], 16)
    generated = oracle.generate(
        input_ids=case["tokens"].where(case["tokens"] != -200, IMAGE_ROW),
        pixel_values=case["images"],
        max_new_tokens=16,
        do_sample=False,
        eos_token_id=None,
        suppress_tokens=[IMAGE_ROW],
    )
    tokens = case["tokens"]
    for _ in range(16):
        positions = torch.arange(tokens.shape[1])[None]
        following = model(tokens, positions, case["images"])[:, -1:].argmax(-1)
        tokens = torch.cat([tokens, following], dim=1)
    assert torch.equal(tokens[:, 16:], generated[:, -16:])


def test_text_only_logits_and_loss_equal_those_of_transformers(tmp_path):
    recipe = text_recipe()
    oracle = hf_llama(recipe)
    model = load(recipe, oracle, tmp_path)
    case = batch([0, 0, 0], 20)
    logits = oracle(case["tokens"]).logits
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), case["labels"].flatten(), ignore_index=-100, reduction="none"
    ).view(3, 20)
    assert (model(case["tokens"], case["position_ids"])[..., :VOCABULARY] - logits).abs().max() <= 1e-4
    loss = model(case["tokens"], case["position_ids"], labels=case["labels"])
    assert loss.dtype == torch.float32
    assert (loss - expected).abs().max() <= 1e-5
    assert (loss[case["labels"] == -100] == 0).all()


@pytest.mark.parametrize("tower", TRAINED)
def test_gradients_equal_those_of_transformers(tower, tmp_path):
    interpolated = {**DINOV2, "model.vision.position_image_size": 70}
    recipe = llava_recipe({"model.vision.freeze": False, **(interpolated if tower == "dinov2" else {})})
    oracle = hf_llava(recipe)
    model = load(recipe, oracle, tmp_path)
    case = batch([1, 2], 20)
    logits = oracle(
        input_ids=case["tokens"].where(case["tokens"] != -200, IMAGE_ROW), pixel_values=case["images"]
    ).logits[..., :VOCABULARY]
    torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), case["labels"].flatten(), ignore_index=-100, reduction="sum"
    ).backward()
    model(case["tokens"], case["position_ids"], case["images"], case["labels"]).sum().backward()
    pairs = [
        (model.language.embedding.word_embeddings.weight, oracle.model.language_model.embed_tokens.weight),
        (model.language.output_layer.weight, oracle.lm_head.weight),
        (
            model.language.decoder.layers[1].mlp.linear_fc2.weight,
            oracle.model.language_model.layers[1].mlp.down_proj.weight,
        ),
        (model.projector[0].weight, oracle.model.multi_modal_projector.linear_1.weight),
        (model.projector[2].bias, oracle.model.multi_modal_projector.linear_2.bias),
        *((model.vision.get_parameter(n), oracle.model.vision_tower.get_parameter(n)) for n in TRAINED[tower]),
    ]
    for ours, theirs in pairs:
        rows = min(len(ours), len(theirs), VOCABULARY) if len(ours) > len(theirs) else len(ours)
        expected = theirs.grad[:rows]
        assert expected.abs().max() > 1e-3
        assert (ours.grad[:rows] - expected).abs().max() <= 1e-4 * max(1.0, expected.abs().max().item())
    assert (model.language.output_layer.weight.grad[VOCABULARY:] == 0).all()
    # Megatron waits for the gradient of every weight that is trained.
    assert [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None] == []
