"""A model named on the hub that has been fetched is compared with the recipe as the same directory is by its path."""

import json
import re

import pytest
from huggingface_hub import try_to_load_from_cache

from executors import DockerExecutor, LocalExecutor, SlurmExecutor
from neva_recipes.plan import plan
from tests.plan.model_directories import write_model
from tests.plan.test_files import LANGUAGE, SPECIALS, TOWER, sample, write_tokenizer
from tests.plan.wrong_fields import make

NAME = "owner/model"
QWEN = LANGUAGE | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
ABOUT_SOURCES = ("shape-mismatch", "vocabulary-size", "checkpoint-unusable", "other-vocabulary", "tokenizer-unusable")
SOURCE, TOKENS = "model.language.from_pretrained=", " data.tokenizer=owner/tokens"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Make an empty home of Hugging Face's libraries, which the environment names."""
    monkeypatch.chdir(tmp_path)
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def snapshot(home, name=NAME):
    """Return the folder of a fetched model, in the layout of the library."""
    folder = home / "hub" / f"models--{name.replace('/', '--')}"
    files = folder / "snapshots/abc"
    for made in (files, folder / "blobs", folder / "refs"):
        made.mkdir(parents=True)
    (folder / "refs/main").write_text("abc")
    return files


def found(overrides, executor=None, recipe="gpt.pretrain tiny"):
    """Return what is said of the sources of a recipe, without the places in which they lie."""
    findings = plan(make(recipe, overrides), executor or LocalExecutor()).findings
    return [
        (one.code, re.sub(r"from_pretrained=[^\s,:]+", "from_pretrained=NAME", one.line()))
        for one in findings
        if one.code in ABOUT_SOURCES
    ]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (LANGUAGE, None),
        (LANGUAGE | {"num_hidden_layers": 2}, "config.json there: num_hidden_layers is 2; "),
        (LANGUAGE | {"vocab_size": 500}, "the embedding there has 500 rows; "),
    ],
)
def test_a_fetched_model_is_compared_as_its_directory_is(home, fields, said):
    files = snapshot(home)
    write_model(files, fields)
    assert try_to_load_from_cache(NAME, "config.json", cache_dir=home / "hub") == str(files / "config.json")
    by_name, by_path = found(f"{SOURCE}{NAME}{TOKENS}"), found(f"{SOURCE}{files}{TOKENS}")
    assert by_name == by_path and len(by_name) == (said is not None)
    assert said is None or said in by_name[0][1]


def test_its_configuration_is_enough(home):
    (snapshot(home) / "config.json").write_text(json.dumps(QWEN))
    ((code, line),) = found(f"{SOURCE}{NAME}{TOKENS}")
    assert code == "shape-mismatch" and line.endswith("config.json there: model_type is qwen2")
    assert found(f"{SOURCE}owner/other{TOKENS}") == []


def test_a_fetch_that_goes_on_is_no_broken_directory(home):
    files = snapshot(home)
    (files / "config.json").write_text(json.dumps(LANGUAGE))
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (files / "model.safetensors.index.json").write_text(json.dumps(index))
    assert found(f"{SOURCE}{NAME}{TOKENS}") == []
    for name in index["weight_map"].values():
        (files / name).write_bytes(b"no tensors")
    ((code, line),) = found(f"{SOURCE}{NAME}{TOKENS}")
    assert code == "checkpoint-unusable" and "is damaged or incomplete" in line


def test_a_configuration_that_is_not_understood(home):
    (snapshot(home) / "config.json").write_text(json.dumps(LANGUAGE | {"model_type": "mamba"}))
    ((code, line),) = found(f"{SOURCE}{NAME}{TOKENS}")
    assert code == "checkpoint-unusable" and "mamba" in line


@pytest.mark.parametrize("executor", [LocalExecutor, SlurmExecutor, lambda **given: DockerExecutor(image="i", **given)])
def test_the_cache_is_that_of_the_run(tmp_path, executor):
    (snapshot(tmp_path / "shared") / "config.json").write_text(json.dumps(QWEN))
    overrides = f"{SOURCE}{NAME}{TOKENS}"
    assert found(overrides, executor()) == []
    ((code, _),) = found(overrides, executor(env={"HF_HOME": str(tmp_path / "shared")}))
    assert code == "shape-mismatch"


def test_towers(home):
    source = f"model.vision.from_pretrained={NAME} {SOURCE}owner/words{TOKENS}"
    (snapshot(home) / "config.json").write_text(json.dumps(TOWER | {"patch_size": 28}))
    ((code, line),) = found(source, recipe="llava.pretrain tiny")
    assert code == "shape-mismatch" and "config.json there: patch_size is 28; " in line


def test_what_the_weights_alone_tell_is_left_open(home):
    """The original LLaVA may save a tower that its configuration does not describe."""
    original = LANGUAGE | {"model_type": "llava", "mm_hidden_size": 128, "mm_projector_type": "mlp2x_gelu"}
    (snapshot(home) / "config.json").write_text(json.dumps(original | {"mm_vision_tower": "openai/clip"}))
    sources = " ".join(f"model.{part}.from_pretrained={NAME}" for part in ("language", "vision", "projector"))
    assert found(sources + TOKENS, recipe="llava.finetune tiny") == []


@pytest.mark.parametrize("recipe", ["llava.finetune tiny", "gpt.pretrain tiny"])
def test_lengths_are_measured_with_a_fetched_tokenizer(recipe, home, tmp_path):
    """Of what the run itself finds fetched; by an estimate where that is nothing."""
    files = snapshot(tmp_path / "shared", "owner/tokens")
    write_tokenizer(files)
    (tmp_path / "chats.jsonl").write_text("".join(f"{json.dumps(sample(number))}\n" for number in range(8)))
    (tmp_path / "text.txt").write_text("words of a text\n" * 50)
    data = f"data.data_path={tmp_path / ('chats.jsonl' if recipe.startswith('llava') else 'text.txt')}"

    def lengths(tokenizer, executor):
        planned = plan(make(recipe, f"{data} data.tokenizer={tokenizer}"), executor).lengths
        return planned.tokens, planned.samples, planned.source

    shared = LocalExecutor(env={"HF_HOME": str(tmp_path / "shared")})
    by_path = lengths(files, LocalExecutor())
    assert lengths("owner/tokens", shared) == by_path and "estimate" not in by_path[2]
    assert "estimate" in lengths("owner/tokens", LocalExecutor())[2]


def test_cuts_are_found_with_a_fetched_tokenizer(home, tmp_path):
    write_tokenizer(snapshot(home, "owner/tokens"))
    (tmp_path / "chats.jsonl").write_text("".join(f"{json.dumps(sample(number))}\n" for number in range(8)))
    overrides = f"data.data_path={tmp_path / 'chats.jsonl'} data.sequence_length=80 data.tokenizer="
    by_name, by_path = (
        [
            one.line()
            for one in plan(make("llava.finetune tiny", overrides + name)).findings
            if one.code == "samples-cut"
        ]
        for name in ("owner/tokens", str(home / "hub/models--owner--tokens/snapshots/abc"))
    )
    assert by_name == by_path and len(by_name) == 1 and "estimate" not in by_name[0]


def test_its_tokenizer_is_counted(home):
    """The tokenizer that goes with the model has the 256 bytes and special tokens, one more than the recipe's rows."""
    files = snapshot(home)
    write_model(files, LANGUAGE)
    write_tokenizer(files)
    tokens = 256 + len(SPECIALS)
    overrides = f" model.language.vocab_size={tokens - 1}"
    by_name, by_path = found(f"{SOURCE}{NAME}{overrides}"), found(f"{SOURCE}{files}{overrides}")
    assert by_name == by_path
    assert {code for code, _ in by_name} == {"vocabulary-size"} and f"the tokenizer {tokens} tokens" in by_name[0][1]
