"""Every kind of rotary positions computes what transformers computes, within its first length and beyond."""

import copy
import dataclasses

import pytest
import torch
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
from model_cases import changed, findings_of_source, text_recipe
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from neva_model.checkpoints.huggingface.pretrained import load_pretrained
from neva_model.checkpoints.huggingface.recipe import recipe_from_huggingface
from neva_model.data.loading.collate import collate
from neva_model.data.sample import Sample
from neva_model.inference.generate import complete, generate
from neva_model.inference.options import Sampling
from neva_model.model import build_model
from neva_model.model.rotary import rotary_frequencies
from neva_recipes.config import CheckpointError, PrecisionConfig, RopeConfig
from neva_recipes.families.rope import resolved_rope
from neva_recipes.plan.checks import with_values
from tests.exported_models import export_model
from tests.sentencepiece_models import train_sentencepiece

LONGEST = 48
PAIRS = 4
KINDS = {
    "default": {},
    "linear": {"factor": 2.5},
    "dynamic": {"factor": 2.0},
    "dynamic with a factor of 1": {"factor": 1.0},
    "llama3": {
        "factor": 4.0,
        "low_freq_factor": 1.5,
        "high_freq_factor": 3.0,
        "original_max_position_embeddings": 24,
    },
    "llama3 of Llama 3.1": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 16},
    "yarn without an original length": {"factor": 2.0},
    "yarn with two scales": {"factor": 4.0, "mscale": 0.7, "mscale_all_dim": 0.3, "beta_fast": 4.0, "beta_slow": 0.5},
    "yarn with a factor of attention": {"factor": 40.0, "attention_factor": 1.5, "truncate": False},
    "yarn with null for truncate": {"factor": 8.0, "original_max_position_embeddings": 256, "truncate": None},
    "longrope": {
        "short_factor": [1.0, 1.1, 1.3, 1.5],
        "long_factor": [1.0, 2.0, 3.5, 8.0],
        "original_max_position_embeddings": 20,
    },
    "longrope with a factor": {
        "short_factor": [1.0] * PAIRS,
        "long_factor": [4.0] * PAIRS,
        "factor": 32.0,
        "original_max_position_embeddings": 20,
    },
    "longrope with a factor of attention": {
        "short_factor": [1.0] * PAIRS,
        "long_factor": [2.0] * PAIRS,
        "attention_factor": 0.8,
        "original_max_position_embeddings": 20,
    },
}
"""What stands in `rope_parameters` beside the type, which is the first word, and the base."""


SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": LONGEST,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def llama_config(kind):
    return LlamaConfig(
        **SIZES,
        rope_parameters={"rope_type": kind.split()[0], "rope_theta": 5000.0, **KINDS[kind]},
    )


@torch.no_grad()
def drawn(model):
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        values = torch.empty(parameter.shape).normal_(0.0, 0.3, generator=generator)
        parameter.copy_(values + 1.0 if parameter.dim() == 1 else values)
    return model.eval()


def opened(directory):
    """Return the recipe and the model of a directory, by what its config.json says alone."""
    recipe = dataclasses.replace(recipe_from_huggingface(directory), precision=PrecisionConfig(precision="fp32"))
    model = build_model(recipe, pre_process=True, post_process=True).eval()
    load_pretrained(model, recipe)
    return recipe, model


PLAIN = {"model.language.rope": None, "model.language.rope_scaling_factor": None}


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    """A model of transformers and ours."""
    oracle = drawn(LlamaForCausalLM(llama_config(request.param)))
    directory = tmp_path_factory.mktemp("rope")
    oracle.save_pretrained(directory)
    return oracle, *opened(directory)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    train_sentencepiece(path, ["one two three four five"] * 50, 290)
    return str(path)


def tokens_of(rows, length):
    return torch.randint(3, 100, (rows, length), generator=torch.Generator().manual_seed(length))


@torch.no_grad()
def logits_of(model, tokens):
    return model(tokens, torch.arange(tokens.shape[1]).expand(tokens.shape))[..., : model.language.unpadded_vocab_size]


@torch.no_grad()
def test_logits_equal_those_of_transformers(pair):
    oracle, _, model = pair
    # Longer and shorter in turn, since frequencies that depend on the length must come back.
    for length in (16, 100, 20, 21, 48, 49, 250, 30):
        tokens = tokens_of(2, length)
        expected = oracle(tokens).logits
        logits = logits_of(model, tokens)
        assert (logits - expected).abs().max() <= 1e-4, length
        assert torch.equal(logits.argmax(-1), expected.argmax(-1))
        assert expected.abs().max() > 1.0


@torch.no_grad()
def test_the_kinds_differ_from_plain_positions(pair):
    """Without this, a model that ignored its kind could pass by equal weights alone."""
    oracle, recipe, model = pair
    plain = build_model(changed(recipe, PLAIN), pre_process=True, post_process=True).eval()
    plain.load_state_dict(model.state_dict())
    tokens = tokens_of(2, 250)
    difference = (logits_of(model, tokens) - logits_of(plain, tokens)).abs().max()
    if oracle.config.rope_parameters["rope_type"] == "default":
        assert difference == 0
    else:
        assert difference > 0.05


@torch.no_grad()
@pytest.mark.parametrize("length", [5, 17, 30])
def test_greedy_tokens_equal_those_of_transformers(pair, length):
    """The answers go over every length at which something changes."""
    oracle, recipe, model = pair
    tokens, rope = tokens_of(3, length), recipe.model.language.rope
    limit = recipe.model.language.longest_sequence
    steps = min(70, limit - length)
    ours = complete(generate(model, tokens, sampling=Sampling(max_new_tokens=steps), stop_token_ids=()), ())
    # transformers' class of Llama keeps keys of the short factors beside long ones; that of Phi-3 computes them anew.
    is_cached = rope is None or rope.kind != "longrope"
    theirs = oracle.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=steps,
        do_sample=False,
        use_cache=is_cached,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert ours == theirs[:, length:].tolist()
    assert len({token for answer in ours for token in answer}) > 5


def test_an_export_means_the_same(pair, tokenizer, tmp_path):
    oracle, recipe, model = pair
    recipe = changed(recipe, {"model.language.from_pretrained": None})
    export_model(model, recipe, tokenizer, tmp_path / "out")
    there = AutoConfig.from_pretrained(tmp_path / "out")
    # Null is false, and is written as such.
    told = {key: False if value is None else value for key, value in oracle.config.rope_parameters.items()}
    assert there.rope_parameters == told
    assert there.max_position_embeddings == oracle.config.max_position_embeddings
    again, _ = opened(tmp_path / "out")
    assert again.model.language.rope == recipe.model.language.rope
    assert again.model.language.rope_scaling_factor == recipe.model.language.rope_scaling_factor


def test_a_recipe_of_other_positions_is_told_how_to_mend_it(pair):
    _, recipe, _ = pair
    there, stretched = recipe.model.language, PLAIN | {"model.language.rope": RopeConfig(kind="linear", factor=3.0)}
    for fields in (PLAIN, stretched):
        other = changed(recipe, fields)
        found = findings_of_source(other)
        if resolved_rope(other.model.language) == resolved_rope(there):
            assert found == []
            continue
        (finding,) = found
        assert resolved_rope(with_values(other, finding.remedies[0]).model.language) == resolved_rope(there)
        assert findings_of_source(with_values(other, finding.remedies[0])) == []
        with pytest.raises(CheckpointError, match=r"rope(_type| \w+) is .*, but the recipe has model\.language\.rope"):
            load_pretrained(build_model(other, pre_process=True, post_process=True), other)


def test_a_length_that_frequencies_depend_on_must_be_the_same(pair):
    oracle, recipe, _ = pair
    shorter = changed(recipe, {"model.language.max_position_embeddings": LONGEST - 8, "data.sequence_length": 40})
    config = copy.deepcopy(oracle.config)
    config.max_position_embeddings = LONGEST - 8
    states, positions = torch.zeros(1, 1, 1), torch.arange(LONGEST - 4)[None]
    turns, others = (LlamaRotaryEmbedding(each)(states, positions) for each in (oracle.config, config))
    assert len(findings_of_source(shorter)) == (not all(map(torch.equal, turns, others)))


def frequencies_of(fields):
    language = text_recipe(fields).model.language
    return rotary_frequencies(language, resolved_rope(language))


@pytest.mark.parametrize("factor", [1.0, 8.0, 32.0])
def test_a_scaling_factor_means_what_core_computes(factor):
    """Runs that were trained with Core's own positions go on with the same ones."""
    fields = {"model.language.rope_scaling_factor": factor, "model.language.rotary_base": 500000.0}
    core = RotaryEmbedding(8, 1.0, rotary_base=500000.0, rope_scaling=True, rope_scaling_factor=factor)
    assert torch.equal(frequencies_of(fields), core.inv_freq)
    plain = RotaryEmbedding(8, 1.0, rotary_base=500000.0)
    fields["model.language.rope_scaling_factor"] = None
    assert torch.equal(frequencies_of(fields), plain.inv_freq)


PARTS = {
    "whole longrope": {"kind": "longrope", **KINDS["longrope"]},
    "half": {"kind": "default", "partial_rotary_factor": 0.5},
    "odd": {"kind": "default", "partial_rotary_factor": 0.7},
    "longrope": {
        "kind": "longrope",
        "partial_rotary_factor": 0.5,
        "short_factor": [1.0, 1.2],
        "long_factor": [1.0, 3.0],
        "original_max_position_embeddings": 20,
    },
}


@torch.no_grad()
@pytest.mark.parametrize("part", PARTS)
def test_phi_3_rotates_parts_of_heads(part, tokenizer, tmp_path):
    parameters = {key: value for key, value in PARTS[part].items() if key != "kind"}
    oracle = drawn(
        Phi3ForCausalLM(
            Phi3Config(
                **SIZES,
                original_max_position_embeddings=20,
                pad_token_id=0,
                rope_parameters={"rope_type": PARTS[part]["kind"], "rope_theta": 10000.0, **parameters},
            )
        )
    )
    oracle.save_pretrained(tmp_path / "phi")
    recipe, model = opened(tmp_path / "phi")
    for length in (16, 20, 21, 60):
        tokens = tokens_of(2, length)
        assert (logits_of(model, tokens) - oracle(tokens).logits).abs().max() <= 1e-4, length
    # Over the length at which longrope changes.
    tokens = tokens_of(2, 17)
    ours = complete(generate(model, tokens, sampling=Sampling(max_new_tokens=20), stop_token_ids=()), ())
    theirs = oracle.generate(tokens, max_new_tokens=20, do_sample=False, eos_token_id=None)
    assert ours == theirs[:, 17:].tolist()
    export_model(model, changed(recipe, {"model.language.from_pretrained": None}), tokenizer, tmp_path / "out")
    there = AutoConfig.from_pretrained(tmp_path / "out")
    assert there.rope_parameters == oracle.config.rope_parameters
    if PARTS[part]["kind"] == "longrope":
        assert there.original_max_position_embeddings == 20


@torch.no_grad()
@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_padding_for_a_layout_changes_nothing(kind):
    """A sample of 47 tokens in a row of 56 has the angles of 47, whether its own length is the longest or not."""
    fields = {"dynamic": {"factor": 4.0}, "longrope": {"short_factor": [1.0] * 4, "long_factor": [3.0] * 4}}[kind]
    recipe = text_recipe({"model.language.rope": RopeConfig(kind=kind, **fields)})
    first = {"dynamic": 40, "longrope": 48}[kind]
    recipe = changed(recipe, {"model.language.max_position_embeddings": first, "model.language.init_method_std": 0.3})
    model = build_model(recipe, pre_process=True, post_process=True).eval()
    tokens = tokens_of(1, 47)[0]
    padded = collate([Sample(tokens, tokens)], pad_to_multiple_of=8, image_size=28)
    wide = collate([Sample(tokens, tokens)], pad_to_multiple_of=28, image_size=28)
    assert (padded["tokens"].shape[1], wide["tokens"].shape[1]) == (48, 56)
    alone = logits_of(model, tokens[None])
    for batch in (padded, wide):
        logits = model(batch["tokens"], batch["position_ids"])[:, :47, :100]
        assert (logits - alone).abs().max() <= 1e-5
    longer = logits_of(model, torch.nn.functional.pad(tokens[None], (0, 9)))[:, :47]
    assert (longer - alone).abs().max() > 1e-2
