"""Each family of language models computes what transformers computes of it, and goes there and back unchanged."""

import json
import logging
import re

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from neva_model.checkpoints.huggingface.pretrained import load_pretrained
from neva_model.checkpoints.huggingface.recipe import recipe_from_huggingface
from neva_model.inference.generate import complete, generate
from neva_model.inference.options import Sampling
from neva_model.model import build_model
from neva_recipes.plan import plan
from neva_recipes.plan.huggingface.configuration import read_configuration
from tests.exported_models import export_model
from tests.model.model_cases import LANGUAGES, changed, hf_language, hf_llava, llava_recipe, pretrained, text_recipe
from tests.sentencepiece_models import train_words

TOKENIZER_ROWS = 400
SIZES = {"model.language.vocab_size": TOKENIZER_ROWS, "model.language.max_position_embeddings": 640}
SHAPES = {
    "grouped": {"model.language.layernorm_epsilon": 1e-6, "model.language.rotary_base": 1e6},
    "tied, odd vocabulary": {
        "model.language.num_query_groups": 4,
        "model.language.share_embeddings_and_output_weights": True,
        "model.language.vocab_size": 403,
    },
    "wide heads": {"model.language.kv_channels": 12, "model.language.num_query_groups": 1},
}
WINDOWS = {"grouped": 40, "wide heads": 7}
"""By the shape; other shapes have none."""
FAMILIES = sorted(set(LANGUAGES) - {"llama"})


def recipe_of(family, shape):
    window = {"model.language.sliding_window": WINDOWS.get(shape)} if family in ("mistral", "phi3") else {}
    return text_recipe({**SIZES, "model.language.family": family, **window, **SHAPES[shape]})


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    train_words(path, ["what", "is", "the", "digit", "?", "it", "a", "one", "two", "odd", "even", "number"])
    return str(path)


@pytest.fixture
def warnings_of_transformers():
    """The lines in which transformers warns."""
    lines, logger = [], logging.getLogger("transformers")
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def loaded(directory):
    """Return the model and the recipe of a directory, in fp32."""
    recipe = changed(recipe_from_huggingface(directory), {"precision.precision": "fp32"})
    model = build_model(recipe, pre_process=True, post_process=True).eval()
    load_pretrained(model, recipe)
    return model, recipe


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_it_computes_what_transformers_computes(family, shape, tmp_path):
    oracle = hf_language(recipe_of(family, shape))
    oracle.save_pretrained(tmp_path)
    model, recipe = loaded(tmp_path)
    language = recipe.model.language
    assert language.family == family
    assert plan(recipe).parameters[0].total == oracle.num_parameters()
    rows = language.vocab_size
    for length in (64, 512):
        tokens = torch.randint(3, rows, (2, length), generator=torch.Generator().manual_seed(length))
        expected = oracle(input_ids=tokens).logits
        logits = model(tokens, torch.arange(length).expand(2, -1))[..., :rows]
        assert expected.abs().max() > 1.0
        assert (logits - expected).abs().max() <= 1e-4

    prompt = tokens[:, :48]
    wanted = oracle.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=24, do_sample=False, eos_token_id=None
    )
    steps = generate(model, prompt, sampling=Sampling(temperature=0.0, max_new_tokens=24), stop_token_ids=())
    assert complete(steps, ()) == wanted[:, 48:].tolist()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_export_is_the_directory_that_it_came_from(family, shape, tokenizer, tmp_path, warnings_of_transformers):
    hf_language(recipe_of(family, shape)).save_pretrained(tmp_path / "there")
    model, recipe = loaded(tmp_path / "there")
    export_model(model, recipe, tokenizer, tmp_path / "back")
    there, back = (load_file(tmp_path / name / "model.safetensors") for name in ("there", "back"))
    assert there.keys() == back.keys()
    assert [name for name in there if not torch.equal(there[name], back[name])] == []

    _, loading = AutoModelForCausalLM.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(loading.values()) and warnings_of_transformers == []
    told = [AutoConfig.from_pretrained(tmp_path / name).to_dict() for name in ("there", "back")]
    for config in told:
        # Ids are the tokenizer's; to a class without head_dim it is the width of a head that it computes itself.
        config.pop("_name_or_path", None)
        for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
            del config[key]
        config.setdefault("head_dim", recipe.model.language.head_size)
    assert told[0] == told[1]


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_a_llava_has_it_as_its_language_model(family, tokenizer, tmp_path):
    oracle = hf_llava(llava_recipe({**SIZES, "model.language.family": family}))
    oracle.save_pretrained(tmp_path / "there")
    model, recipe = loaded(tmp_path / "there")
    export_model(model, pretrained(recipe, tmp_path / "there"), tokenizer, tmp_path / "back")
    there, back = (load_file(tmp_path / name / "model.safetensors") for name in ("there", "back"))
    # Older releases of transformers and vLLM know the tower by this name.
    back = {re.sub(r"^vision_tower\.vision_model\.", "vision_tower.", name): tensor for name, tensor in back.items()}
    assert there.keys() == back.keys()
    assert [name for name in there if not torch.equal(there[name], back[name])] == []
    assert json.loads((tmp_path / "back/config.json").read_text())["text_config"]["model_type"] == family
    assert read_configuration(tmp_path / "back").language == read_configuration(tmp_path / "there").language
