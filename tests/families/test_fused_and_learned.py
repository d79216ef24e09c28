"""Families whose tensors are fused, grouped or transposed, or whose positions are learned, against transformers."""

import json
import logging
import re
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from neva_model.checkpoints.huggingface.pretrained import load_pretrained
from neva_model.checkpoints.huggingface.recipe import recipe_from_huggingface
from neva_model.inference.generate import generate
from neva_model.inference.options import Sampling
from neva_model.model import build_model
from neva_model.tokenizers import load_tokenizer
from neva_recipes.config import CheckpointError, DataError
from neva_recipes.plan import plan
from neva_recipes.plan.checks import with_values
from tests.end_to_end.world import make_world
from tests.exported_models import export_model
from tests.families.fused_models import ROWS, SHAPES, save
from tests.sentencepiece_models import train_words


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return str(make_world(tmp_path_factory.mktemp("world")).tokenizer)


@torch.no_grad()
@pytest.mark.parametrize(("family", "shape"), SHAPES)
def test_its_model_computes_what_transformers_computes_and_comes_back(family, shape, tokenizer, tmp_path):
    oracle = save(family, shape, tmp_path / "there")
    recipe = with_values(recipe_from_huggingface(tmp_path / "there"), {"precision.precision": "fp32"})
    assert recipe.model.language.family == family
    assert plan(recipe).parameters[0].total == oracle.num_parameters()
    model = build_model(recipe, pre_process=True, post_process=True).eval()
    load_pretrained(model, recipe)
    for length in (64, 512):
        tokens = torch.randint(3, 300, (2, length))
        logits = model(tokens, torch.arange(length).expand(2, -1))[..., :ROWS]
        assert (logits - oracle(input_ids=tokens).logits).abs().max() <= 1e-4
    prompt = tokens[:1, :20]
    expected = oracle.generate(prompt, max_new_tokens=16, do_sample=False, eos_token_id=None, pad_token_id=0)[0, 20:]
    sampling = Sampling(max_new_tokens=16, temperature=0.0)
    assert [step[0] for step in generate(model, prompt, sampling=sampling, stop_token_ids=())] == expected.tolist()

    export_model(model, recipe, tokenizer, tmp_path / "back")
    there = {name: weight for name, weight in oracle.state_dict().items() if name != _tied(oracle)}
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert there.keys() == back.keys()
    assert [name for name in there if not torch.equal(there[name], back[name])] == []
    if family != "internlm2":
        assert load_file(tmp_path / "there" / "model.safetensors").keys() == back.keys()


def _tied(oracle):
    return "lm_head.weight" if oracle.config.tie_word_embeddings else None


IDLE = {"_name_or_path", "transformers_version", "bos_token_id", "eos_token_id", "pad_token_id", "dtype", "n_inner"}
"""What a tokenizer decides, and what need not be written (n_inner, which is compared below)."""


@pytest.mark.parametrize(("family", "shape"), SHAPES)
def test_the_exported_directory_means_the_same_and_loads_without_a_warning(
    family, shape, tokenizer, tmp_path, caplog, capfd
):
    oracle = save(family, shape, tmp_path / "there")
    recipe = with_values(recipe_from_huggingface(tmp_path / "there"), {"precision.precision": "fp32"})
    model = build_model(recipe, pre_process=True, post_process=True).eval()
    load_pretrained(model, recipe)
    export_model(model, recipe, tokenizer, tmp_path / "back")
    capfd.readouterr()
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        loaded, loading = AutoModelForCausalLM.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(loading.values()) and caplog.records == []
    assert type(loaded) is type(oracle)
    ours, theirs = AutoConfig.from_pretrained(tmp_path / "back").to_dict(), oracle.config.to_dict()
    different = {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
    assert different - IDLE <= {"head_dim", "architectures"}
    assert ours["architectures"] == [type(oracle).__name__]
    if family == "gpt2":
        assert ours["n_inner"] == (theirs["n_inner"] or 4 * theirs["n_embd"])
    if family == "phi3":
        assert ours["head_dim"] == oracle.model.layers[0].self_attn.head_dim


def test_code_of_a_directory_is_never_run(tmp_path, monkeypatch):
    """transformers would ask the user whether to run it."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    directory, ran = tmp_path / "there", tmp_path / "ran"
    save("internlm2", "grouped", directory)
    train_words(directory / "tokenizer.model", ["what", "is", "the", "digit"])
    settings = {"auto_map": {"AutoTokenizer": ["mine.Mine", "mine.Mine"]}, "tokenizer_class": "Mine"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    for name in ("mine", "configuration_internlm2", "modeling_internlm2"):
        (directory / f"{name}.py").write_text(f"open({str(ran)!r}, 'w')\nclass Mine: pass\n")
    recipe = recipe_from_huggingface(directory)
    load_pretrained(build_model(recipe, pre_process=True, post_process=True), recipe)
    with pytest.raises(DataError):
        load_tokenizer(str(directory), vocab_size=None)
    assert load_tokenizer(str(directory / "tokenizer.model"), vocab_size=None).vocab_size > 256
    assert not ran.exists()


def test_masks_that_old_versions_saved_are_passed_over(tmp_path):
    oracle = save("gpt2", "as published", tmp_path)
    tensors = {
        name.removeprefix("transformer."): weight for name, weight in load_file(tmp_path / "model.safetensors").items()
    }
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 640, 640, dtype=torch.uint8)
    tensors["h.0.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(tensors, tmp_path / "model.safetensors")
    recipe = with_values(recipe_from_huggingface(tmp_path), {"precision.precision": "fp32"})
    model = build_model(recipe, pre_process=True, post_process=True).eval()
    load_pretrained(model, recipe)
    assert torch.equal(model.language.embedding.position_embeddings.weight, oracle.transformer.wpe.weight)
    assert torch.equal(
        model.language.decoder.layers[0].mlp.linear_fc1.weight, oracle.transformer.h[0].mlp.c_fc.weight.t()
    )


@pytest.mark.parametrize(
    ("family", "field", "value", "told"),
    [
        ("gpt2", "max_position_embeddings", 320, "n_positions is 640, but the recipe has"),
        ("gpt2", "kv_channels", 24, "the width of a head is 12, but the recipe has model.language.kv_channels=24"),
        ("gpt2", "num_query_groups", 2, "the number of key/value heads is 4, but the recipe has"),
        ("gpt2", "ffn_hidden_size", 96, "n_inner is 192, but the recipe has model.language.ffn_hidden_size=96"),
        ("internlm2", "kv_channels", 24, "the width of a head is 12, but the recipe has model.language.kv_channels=24"),
        ("phi3", "kv_channels", 24, "head_dim is 12, but the recipe has model.language.kv_channels=24"),
    ],
)
def test_a_recipe_of_another_shape_is_told_both_values(family, field, value, told, tmp_path):
    save(family, "as published" if family == "gpt2" else "grouped", tmp_path)
    recipe = with_values(recipe_from_huggingface(tmp_path), {f"model.language.{field}": value})
    with pytest.raises(CheckpointError, match=re.escape(told)):
        load_pretrained(build_model(recipe, pre_process=True, post_process=True), recipe)
