"""Weights in 4 bits beside those that bitsandbytes makes of Hugging Face's tensors, and the bytes they take."""

import bitsandbytes.functional
import pytest
import torch

from neva_model.checkpoints.load import initialize_single_process
from neva_model.checkpoints.pretrained import load_initial_weights
from neva_model.model import ModelChunks, build_model
from neva_model.model.adapters.quantized import weight_of
from neva_model.startup import prepare_process
from neva_recipes.config import build
from neva_recipes.plan import layout_of
from neva_recipes.plan.checks import with_values
from neva_recipes.plan.cost.memory import memory_of
from tests.model.model_cases import hf_language, pretrained, text_recipe

SIZES = {
    "model.language.hidden_size": 128,
    "model.language.ffn_hidden_size": 320,
    "model.language.vocab_size": 64,
    "model.language.make_vocab_size_divisible_by": 8,
}


@pytest.fixture(scope="module", autouse=True)
def one_process():
    prepare_process()
    initialize_single_process()


def of_bitsandbytes(weight):
    packed, state = bitsandbytes.functional.quantize_4bit(
        weight.contiguous(), quant_type="nf4", compress_statistics=True
    )
    return bitsandbytes.functional.dequantize_4bit(packed, state)


@pytest.mark.parametrize("family", ["llama", "qwen2", "phi3"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_logits_are_those_of_the_same_bits_in_transformers(family, precision, tmp_path):
    changes = {**SIZES, "model.language.family": family, "precision.precision": precision}
    if family == "phi3":
        changes["model.language.sliding_window"] = 8
    recipe = text_recipe(changes)
    oracle = hf_language(recipe)
    oracle.save_pretrained(tmp_path / "hf")
    recipe = with_values(
        pretrained(recipe, tmp_path / "hf"), {"model.language.freeze": True, "model.language.quantize": "nf4"}
    )
    ours = build_model(recipe, pre_process=True, post_process=True).eval()
    load_initial_weights(ModelChunks([ours]), recipe)
    if precision == "bf16":  # the products themselves differ by the order of their sums
        for ours_layer, layer in zip(ours.language.decoder.layers, oracle.bfloat16().model.layers, strict=True):
            pairs = ((ours_layer.self_attention.linear_proj, layer.self_attn.o_proj.weight),)
            pairs += ((ours_layer.mlp.linear_fc2, layer.mlp.down_proj.weight),)
            for linear, weight in pairs:
                assert torch.equal(weight_of(linear), of_bitsandbytes(weight))
        return
    with torch.no_grad():
        for name, module in oracle.named_modules():
            if isinstance(module, torch.nn.Linear) and "lm_head" not in name:
                module.weight.copy_(of_bitsandbytes(module.weight))
        tokens = torch.arange(3, 27)[None]
        logits = ours(tokens, torch.arange(24)[None])[..., : recipe.model.language.vocab_size]
        expected = oracle(input_ids=tokens).logits
    assert (logits - expected).abs().max() <= 1e-4


def test_bytes_of_the_weights(tmp_path):
    recipe = with_values(
        text_recipe({**SIZES, "precision.precision": "bf16"}),
        {"model.language.freeze": True, "model.language.quantize": "nf4"},
    )
    model = build_model(recipe, pre_process=True, post_process=True)
    before = sum(parameter.numel() for parameter in model.parameters())
    load_initial_weights(ModelChunks([model]), recipe)
    quantized = [
        module._forward_impl.quantized
        for module in model.modules()
        if hasattr(getattr(module, "_forward_impl", None), "quantized")
    ]
    left = list(model.parameters())
    of_linear = before - sum(parameter.numel() for parameter in left)
    held = sum(one.nbytes for one in quantized) + sum(parameter.nbytes for parameter in left)
    assert len(quantized) == 4 * recipe.model.language.num_layers
    assert sum(one.nbytes for one in quantized) <= 0.6 * of_linear
    (stage,) = memory_of(recipe, layout_of(recipe))
    # bitsandbytes rounds the scales of a small tensor up to a whole block.
    assert stage.bytes["weights"] == pytest.approx(held, rel=0.02)


def test_bytes_of_7b():
    from neva_recipes import llava

    recipe = build(llava.qlora("7b"))
    (stage,) = memory_of(recipe, layout_of(recipe))
    adapters_and_others = 2 * (159_907_840 + 20_979_712 + 303_507_456)
    assert (stage.bytes["weights"] - adapters_and_others) / 6_738_415_616 <= 0.6
