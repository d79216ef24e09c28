"""Weights go from a run with Transformer Engine's layers to one without, and back."""

import dataclasses

import pytest
import torch

from neva_model.checkpoints.load import initialize_single_process, load_model
from neva_model.checkpoints.pretrained import load_initial_weights
from neva_model.model import ModelChunks, build_model
from neva_model.model import language as language_module
from neva_model.startup import prepare_process
from neva_recipes import llava
from neva_recipes.config import build, set_field
from tests.benchmarks.fused_layers import fused_block_spec
from tests.inference.tiny_models import save_run

SIZES = {"num_layers": 2, "hidden_size": 32, "ffn_hidden_size": 48, "vocab_size": 100}
LAYERS = ("fused", "separate")


@pytest.fixture(scope="module", autouse=True)
def one_process():
    prepare_process()
    initialize_single_process()


@pytest.fixture(scope="module")
def recipe():
    recipe = llava.finetune("tiny")
    for name, value in SIZES.items():
        set_field(recipe, f"model.language.{name}", str(value))
    set_field(recipe, "model.vision.num_layers", "2")
    set_field(recipe, "data.tokenizer", "tokenizer")
    return build(recipe)


@pytest.fixture
def use_layers(monkeypatch):
    separate = language_module.block_spec

    def use(layers):
        monkeypatch.setattr(language_module, "block_spec", fused_block_spec if layers == "fused" else separate)

    return use


def whole_model(recipe):
    return build_model(recipe, pre_process=True, post_process=True).eval()


@torch.no_grad()
def disturb(model):
    """Move every weight, norms included, away from where it starts."""
    generator = torch.Generator().manual_seed(5)
    for _, parameter in sorted(model.named_parameters(), key=lambda item: (item[1].shape, item[1].sum().item())):
        parameter.add_(torch.empty_like(parameter).normal_(0, 0.1, generator=generator))


@torch.no_grad()
def logits(model):
    tokens = torch.arange(2 * 20).reshape(2, 20) % SIZES["vocab_size"]
    tokens[:, 2:18] = -200
    positions = torch.arange(20).expand(2, -1)
    images = torch.linspace(-1, 1, 2 * 3 * 56 * 56).reshape(2, 3, 56, 56)
    return model(tokens, positions, images)


def test_initial_weights_are_the_same(recipe, use_layers):
    results = {}
    for layers in LAYERS:
        use_layers(layers)
        results[layers] = logits(whole_model(recipe))
    assert torch.isfinite(results["fused"]).all()
    torch.testing.assert_close(results["fused"], results["separate"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("saved", LAYERS)
@pytest.mark.parametrize("loaded", LAYERS)
def test_checkpoints_do_not_depend_on_the_layers(recipe, use_layers, tmp_path, saved, loaded):
    use_layers(saved)
    model = whole_model(recipe)
    disturb(model)
    expected = logits(model)
    run = save_run(model, recipe, tmp_path / "run")

    use_layers(loaded)
    torch.testing.assert_close(logits(load_model(run).model), expected, rtol=0, atol=1e-6)

    parts = {
        part: dataclasses.replace(getattr(recipe.model, part), from_pretrained=str(run))
        for part in ("language", "vision", "projector")
    }
    fresh = whole_model(recipe)
    assert not torch.equal(logits(fresh), expected)
    model = dataclasses.replace(recipe.model, **parts)
    load_initial_weights(ModelChunks([fresh]), dataclasses.replace(recipe, model=model))
    torch.testing.assert_close(logits(fresh), expected, rtol=0, atol=1e-6)
