"""Weights of another size than the recipe's: the size that has them is offered, and no change that they cannot take."""

import re

import pytest

from neva_recipes.config import build
from neva_recipes.families.published import recipe_sizes
from neva_recipes.plan import plan
from neva_recipes.plan.checks import with_values
from neva_recipes.plan.data.files import FileRules
from neva_recipes.plan.findings import field_value
from tests.plan.model_directories import write_model
from tests.plan.test_files import LANGUAGE
from tests.plan.test_projector import LANGUAGE_FIELD, PROJECTOR, VISION, write_run
from tests.plan.wrong_fields import make

ALWAYS = " data.tokenizer=owner/tokens"
CODES = ("shape-mismatch", "projector-mismatch")
VICUNA = "lmsys/vicuna-7b-v1.5"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path, "stage-1", make("llava.pretrain tiny", ALWAYS))
    write_run(tmp_path, "text", make("gpt.pretrain tiny", "model.language.vocab_size=300" + ALWAYS))
    return tmp_path


def told(name, overrides=""):
    """Return what a recipe is told to do about its sizes, by code and fields."""
    findings = FileRules().check(build(make(name, overrides + ALWAYS)))
    return [(one.code, one.line().rpartition("; ")[2]) for one in findings if one.code in CODES]


@pytest.mark.parametrize("name", ["gpt.pretrain", "llava.pretrain", "llava.finetune", "neva.pretrain", "neva.finetune"])
def test_the_sizes_are_those_of_the_recipes(name):
    sizes = recipe_sizes(name)
    assert list(sizes)[-2:] == ["7b", "13b"] and ("tiny" in sizes) == (not name.startswith("neva."))
    for size, fields in sizes.items():
        recipe = build(make(f"{name} {size}"))
        assert {path: field_value(recipe, path) for path in fields} == fields


def test_a_tiny_projector_in_a_large_recipe():
    take = "take size=tiny of llava.finetune, which has these sizes"
    named = f"{PROJECTOR}=stage-1"
    assert told("llava.finetune", named) == [
        ("shape-mismatch", take),
        ("projector-mismatch", f"{take}, with {VISION}=stage-1"),
        ("projector-mismatch", f"{take}, with {LANGUAGE_FIELD}=stage-1"),
    ]
    # A recipe that has no such size is asked for another projector: its own weights cannot take other widths.
    ((code, way), *_) = told("neva.finetune", named)
    assert code == "shape-mismatch"
    beside = "meta-llama/Llama-2-7b-chat-hf and openai/clip-vit-large-patch14"
    assert way == f"take a projector that was trained beside {beside}"


@pytest.mark.parametrize(
    "stage",
    [
        "",
        "trainer.seed=7",
        f"trainer.seed=7 {LANGUAGE_FIELD}=text model.language.vocab_size=300",
        "trainer.seed=7 model.language.freeze=false",
    ],
)
def test_what_a_tiny_projector_asks_for_is_whole(stage, folder):
    write_run(folder, "stage-7", make("llava.pretrain tiny", stage + ALWAYS))
    named = f"{PROJECTOR}=stage-7"
    ways = [way for _, way in told("llava.finetune", named)]
    typed = dict.fromkeys(word for way in ways for word in re.findall(r"[\w.]+=[^ ,]+", way))
    size, *others = typed
    assert size == "size=tiny" and len(others) == 2
    vocabulary = "model.language.vocab_size=300" if f"{LANGUAGE_FIELD}=text" in others else ""  # settled by a launch
    assert told("llava.finetune tiny", f"{named} {' '.join(others)} {vocabulary}") == []


def test_a_tiny_language_model_in_a_large_recipe(folder):
    # Its vocabulary of 300 is no obstacle: tiny takes that of the run.
    take = "take size=tiny of {}, which has these sizes"
    assert told("gpt.pretrain", f"{LANGUAGE_FIELD}=text") == [("shape-mismatch", take.format("gpt.pretrain"))]
    assert told("llava.finetune", f"{LANGUAGE_FIELD}=text")[0][1] == take.format("llava.finetune")
    write_model(folder / "directory", LANGUAGE)
    assert told("gpt.pretrain", f"{LANGUAGE_FIELD}=directory") == [("shape-mismatch", take.format("gpt.pretrain"))]
    # neva has no such size, and is offered the sizes themselves.
    (code, way), *_ = told("neva.finetune", f"{LANGUAGE_FIELD}=text")
    assert code == "shape-mismatch" and way.startswith("set model.language.num_layers=4 model.language.hidden_size=128")


def test_a_recipe_of_that_size_already_is_offered_the_field_that_differs(folder):
    assert told("llava.finetune tiny", f"{PROJECTOR}=stage-1 model.language.hidden_size=256") == [
        ("shape-mismatch", "set model.language.hidden_size=128"),
        ("projector-mismatch", f"set {LANGUAGE_FIELD}=stage-1 model.language.hidden_size=128"),
    ]


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("llava.finetune", "model.language.hidden_size=128", f"{VICUNA}, model.language.hidden_size=128: "),
        ("gpt.pretrain 7b", f"{LANGUAGE_FIELD}={VICUNA} model.language.num_layers=2", f"{VICUNA}, "),
        ("llava.finetune", "model.language.kv_channels=64", "set model.language.kv_channels=none"),
        ("llava.finetune", f"{LANGUAGE_FIELD}=lmsys/vicuna-13b-v1.5", "num_layers=40"),
        ("llava.finetune", "model.vision.image_size=224", "set model.vision.image_size=336"),
        ("gpt.pretrain 7b", f"{LANGUAGE_FIELD}=lmsys/vicuna-7b-v1.5 model.language.vocab_size=32002", None),
        ("llava.finetune", "model.language.max_position_embeddings=2048", None),
        ("llava.finetune", "model.language.kv_channels=128", None),
        ("llava.finetune", f"{LANGUAGE_FIELD}=random model.language.num_layers=2", None),
        ("llava.finetune", f"{LANGUAGE_FIELD}=owner/other model.language.num_layers=2", None),
        ("llava.finetune", f"{VISION}=owner/other model.vision.num_layers=2", None),
    ],
)
def test_sizes_that_published_weights_do_not_have(name, overrides, message):
    recipe = build(make(name, overrides + ALWAYS))
    found = [one for one in FileRules().check(recipe) if one.code == "shape-mismatch"]
    assert [message in one.line() for one in found] == [True] * (message is not None)
    for finding in found:
        (remedy,) = finding.remedies
        mended = FileRules().check(with_values(recipe, remedy))
        assert [one for one in mended if one.code == "shape-mismatch"] == []


@pytest.mark.parametrize(
    ("overrides", "code", "offered"),
    [
        ("model.language.kv_channels=3", "head-size-odd", [None, 8]),
        ("model.language.kv_channels=4 trainer.accelerator=gpu", "head-size", [None, 8]),
        ("model.language.hidden_size=20", "head-size-odd", [8]),
        ("model.language.hidden_size=22", "hidden-heads", [8]),
        ("model.language.kv_channels=33", "head-size-odd", [None, 32, 40]),
        ("model.language.kv_channels=301", "head-size-odd", [None, 256]),
    ],
)
def test_widths_of_heads_that_are_offered_suit_the_kernels(overrides, code, offered):
    (finding,) = (
        one for one in plan(build(make("gpt.pretrain tiny", overrides + ALWAYS))).findings if one.code == code
    )
    widths = [way["model.language.kv_channels"] for way in finding.remedies if "model.language.kv_channels" in way]
    assert widths == offered
    heads = {"model.language.hidden_size": 4, "model.language.num_attention_heads": 4}
    for way in finding.remedies:
        if way.keys() & heads.keys():
            language = with_values(build(make("gpt.pretrain tiny", overrides)), way).model.language
            assert language.head_size % 8 == 0
