"""Adapters of every family beside PEFT on transformers' model of it: the layers by name, the numbers, the logits."""

import dataclasses

import peft
import pytest
import torch

from neva_model.checkpoints.load import initialize_single_process
from neva_model.checkpoints.pretrained import load_initial_weights
from neva_model.model import ModelChunks, build_model
from neva_model.startup import prepare_process
from neva_recipes.config import LoraConfig
from neva_recipes.families import adapters_of
from neva_recipes.plan.checks import check_recipe, with_values
from neva_recipes.plan.cost.parameters import count_parameters
from tests.families.fused_models import save
from tests.model.model_cases import hf_language, pretrained, text_recipe

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "phi3", "gpt2", "internlm2")
KINDS = ("lora", "rslora", "dora")
SOME = {"llama": ["q_proj", "v_proj", "down_proj"], "phi3": ["qkv_proj"], "gpt2": ["c_attn", "mlp.c_proj"]}
"""Some linear layers of a layer, by the names of the family."""


@pytest.fixture(scope="module", autouse=True)
def one_process():
    prepare_process()
    initialize_single_process()


def base(family, folder):
    """Return transformers' model of a family and a recipe that starts from it."""
    from neva_model.checkpoints.huggingface.recipe import recipe_from_huggingface

    if family in ("gpt2", "internlm2"):
        oracle = save(family, "untied" if family == "gpt2" else "one group", folder)
        return oracle, with_values(recipe_from_huggingface(folder), {"precision.precision": "fp32"})
    changes = {"model.language.family": family}
    if family in ("mistral", "phi3"):
        changes["model.language.sliding_window"] = 8
    recipe = text_recipe(changes)
    oracle = hf_language(recipe)
    oracle.save_pretrained(folder)
    return oracle, pretrained(recipe, folder)


def with_lora(recipe, **fields):
    language = dataclasses.replace(recipe.model.language, lora=LoraConfig(dropout=0.0, **fields))
    return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, language=language))


def adapted(oracle, recipe, folder):
    """Return the model with random adapters of PEFT, which are written too."""
    lora = recipe.model.language.lora
    torch.manual_seed(3)
    model = peft.get_peft_model(
        oracle,
        peft.LoraConfig(
            r=lora.rank,
            lora_alpha=2 * lora.rank,
            use_rslora=lora.kind == "rslora",
            use_dora=lora.kind == "dora",
            init_lora_weights=False,
            target_modules=lora.target_modules or "all-linear",
            layers_to_transform=None if lora.layers is None else [0, 2],
            fan_in_fan_out=oracle.config.model_type == "gpt2",
        ),
    )
    model.save_pretrained(folder)
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_numbers_equal_those_of_peft(family, kind, tmp_path):
    oracle, recipe = base(family, tmp_path / "there")
    recipe = with_lora(
        recipe,
        kind=kind,
        rank=3,
        target_modules=SOME.get(family, SOME["llama"]) if kind == "rslora" else None,
        layers="0,2" if kind == "rslora" else None,
        from_pretrained=str(tmp_path / "peft"),
    )
    assert [finding for finding in check_recipe(recipe) if finding.code.startswith("adapter")] == []
    model = adapted(oracle, recipe, tmp_path / "peft")
    trained, total = model.get_nb_trainable_parameters()
    (counted,) = count_parameters(recipe)
    assert (counted.trained, counted.total) == (trained, total)

    ours = build_model(recipe, pre_process=True, post_process=True).eval()
    lines = load_initial_weights(ModelChunks([ours]), recipe)
    number = len(list(adapters_of(recipe.model, "language")))
    assert f"language: {number} adapters loaded from {tmp_path / 'peft'}" in lines
    assert sum(one.numel() for one in ours.parameters() if one.requires_grad) == trained
    rows = recipe.model.language.vocab_size
    tokens = torch.randint(3, min(rows, 100), (2, 24), generator=torch.Generator().manual_seed(1))
    logits = ours(tokens, torch.arange(24).expand(2, -1))[..., :rows]
    expected = model(input_ids=tokens).logits[..., :rows]
    with model.disable_adapter():
        assert (model(input_ids=tokens).logits[..., :rows] - expected).abs().max() > 0.01
    assert (logits - expected).abs().max() <= 1e-4


def test_before_training_adapters_change_nothing(tmp_path):
    oracle, recipe = base("llama", tmp_path / "there")
    tokens = torch.arange(3, 27)[None]
    for kind in KINDS:
        changed = with_lora(recipe, kind=kind, rank=5)
        ours = build_model(changed, pre_process=True, post_process=True).eval()
        load_initial_weights(ModelChunks([ours]), changed)
        with torch.no_grad():
            logits = ours(tokens, torch.arange(24)[None])[..., : recipe.model.language.vocab_size]
            assert (logits - oracle(input_ids=tokens).logits).abs().max() <= 1e-5
