"""A family of vision towers that an installed package declares, read from what transformers saves of its models."""

import json

import pytest
import torch
from transformers import ChineseCLIPConfig, ChineseCLIPModel

from neva_model.checkpoints.huggingface.pretrained import load_pretrained
from neva_model.model import build_model
from neva_model.model.vision import encode_images
from neva_recipes.plan import plan
from neva_recipes.plan.huggingface.configuration import read_configuration
from tests.families.packages import install
from tests.model.model_cases import llava_recipe

TOWER = """
    import dataclasses

    from neva_recipes.families.towers.clip import CLIP

    TOWER = dataclasses.replace(
        CLIP,
        name="chinese",
        title="Chinese CLIP",
        model_type="chinese_clip_vision_model",
        whole_model_type="chinese_clip",
        keys=dataclasses.replace(CLIP.keys, architectures=("ChineseCLIPVisionModel", "ChineseCLIPModel")),
    )
"""

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """A whole model of images and texts, with the package that knows its tower installed."""
    install(tmp_path / "package", "tower", TOWER, "chinese = tower:TOWER")
    monkeypatch.syspath_prepend(tmp_path / "package")
    config = ChineseCLIPConfig(
        vision_config={**SIZES, "image_size": 28, "patch_size": 14}, text_config={**SIZES, "vocab_size": 64}
    )
    ChineseCLIPModel(config).save_pretrained(tmp_path / "whole")
    return tmp_path / "whole"


def test_the_tower_is_read_out_of_a_whole_model(directory):
    found = read_configuration(directory)
    assert (found.tower_family.name, found.problems) == ("chinese", ())
    assert found.vision["hidden_size"] == 16 and found.vision["patch_size"] == 14


@torch.no_grad()
def test_a_model_has_it_with_its_weights(directory):
    sizes = {"num_layers": 2, "vision_model_type": "chinese", "from_pretrained": str(directory)}
    recipe = llava_recipe({f"model.vision.{name}": value for name, value in sizes.items()})
    model = build_model(recipe, pre_process=True, post_process=True).eval()
    load_pretrained(model, recipe)
    oracle = ChineseCLIPModel.from_pretrained(directory).vision_model.eval()
    images = torch.randn(3, 3, 28, 28)
    expected = oracle(images, output_hidden_states=True).hidden_states[-2][:, 1:]
    assert torch.equal(encode_images(model.vision, recipe.model.vision, images), expected)
    counted = {part.part: part.total for part in plan(recipe).parameters}
    assert counted["vision"] == oracle.num_parameters()


def test_the_class_of_another_family_is_refused(directory):
    fields = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**fields, "architectures": ["SiglipModel"]}))
    told = "architectures is SiglipModel, expected ChineseCLIPVisionModel"
    assert read_configuration(directory).problems == (("vision", told),)
