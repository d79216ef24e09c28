"""A LLaVA with a language model of each of these families, read and written, against transformers."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

from neva_model.checkpoints.huggingface.pretrained import load_pretrained
from neva_model.checkpoints.huggingface.recipe import recipe_from_huggingface
from neva_model.model import build_model
from tests.end_to_end.world import make_world
from tests.exported_models import export_model
from tests.families.fused_models import ROWS, drawn, save
from tests.model.model_cases import changed, llava_recipe

IMAGE_ROW = ROWS - 1
TOWER = {"num_hidden_layers": 3, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return str(make_world(tmp_path_factory.mktemp("world")).tokenizer)


def tokens_and_images():
    generator = torch.Generator().manual_seed(4)
    tokens = torch.randint(3, 300, (2, 40), generator=generator)
    for row, start in ((0, 2), (0, 20), (1, 7)):
        tokens[row, start : start + 4] = -200
    return tokens, torch.randn(3, 3, 28, 28, generator=generator)


def loaded(recipe):
    model = build_model(recipe, pre_process=True, post_process=True).eval()
    load_pretrained(model, recipe)
    return model


@torch.no_grad()
def assert_equal_logits(model, oracle, image_row):
    tokens, images = tokens_and_images()
    expected = oracle(input_ids=tokens.where(tokens != -200, image_row), pixel_values=images).logits
    assert expected.std() > 0.1
    logits = model(tokens, torch.arange(40).expand(2, -1), images)
    assert (logits[..., :IMAGE_ROW] - expected[..., :IMAGE_ROW]).abs().max() <= 1e-4


@pytest.mark.parametrize(
    ("family", "shape"), [("phi3", "grouped"), ("phi3", "tied"), ("gpt2", "untied"), ("gpt2", "untied narrow")]
)
def test_one_of_transformers_is_read_and_written(family, shape, tokenizer, tmp_path):
    text = save(family, shape, tmp_path / "text").config
    config = LlavaConfig(
        text_config=text,
        vision_config=CLIPVisionConfig(**TOWER, image_size=28, patch_size=14),
        image_token_index=IMAGE_ROW,
        image_seq_length=4,
        tie_word_embeddings=text.tie_word_embeddings,
    )
    oracle = drawn(LlavaForConditionalGeneration(config))
    oracle.save_pretrained(tmp_path / "there")
    recipe = changed(recipe_from_huggingface(tmp_path / "there"), {"precision.precision": "fp32"})
    assert recipe.model.language.family == family
    model = loaded(recipe)
    assert_equal_logits(model, oracle, IMAGE_ROW)

    export_model(model, recipe, tokenizer, tmp_path / "back")
    again, loading = LlavaForConditionalGeneration.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(loading.values())
    ours, theirs = again.state_dict(), oracle.state_dict()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    written = json.loads((tmp_path / "back" / "config.json").read_text())["text_config"]
    assert written["model_type"] == family


def test_an_internlm2_becomes_the_llama_of_a_llava(tokenizer, tmp_path):
    llama = save("internlm2", "grouped", tmp_path / "language")
    language = recipe_from_huggingface(tmp_path / "language").model.language
    recipe = changed(llava_recipe({"model.vision.from_pretrained": None}), {"model.language": language})
    assert recipe.model.language.family == "internlm2"
    model = loaded(recipe)
    export_model(model, recipe, tokenizer, tmp_path / "out")
    oracle, loading = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(loading.values())
    assert_equal_logits(model, oracle.eval(), oracle.config.image_token_index)
    written = load_file(tmp_path / "out" / "model.safetensors")
    for name, weight in llama.state_dict().items():
        assert torch.equal(written[f"language_model.{name}"][:IMAGE_ROW], weight[:IMAGE_ROW]), name


@torch.no_grad()
def test_a_gpt2_that_shares_its_embeddings_is_written_with_a_copy_of_them(tokenizer, tmp_path):
    """transformers' LLaVA only finds the embeddings of a model that names them like Llama's."""
    text = save("gpt2", "as published", tmp_path / "language")
    language = recipe_from_huggingface(tmp_path / "language").model.language
    assert language.share_embeddings_and_output_weights
    recipe = changed(llava_recipe(), {"model.language": language})
    model = loaded(recipe)
    export_model(model, recipe, tokenizer, tmp_path / "out")
    oracle, loading = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(loading.values())
    assert_equal_logits(model, oracle.eval(), oracle.config.image_token_index)
    assert torch.equal(oracle.lm_head.weight[:IMAGE_ROW], text.lm_head.weight[:IMAGE_ROW])
    opened = changed(recipe_from_huggingface(tmp_path / "out"), {"precision.precision": "fp32"})
    assert not opened.model.language.share_embeddings_and_output_weights
    assert_equal_logits(loaded(opened), oracle, oracle.config.image_token_index)
