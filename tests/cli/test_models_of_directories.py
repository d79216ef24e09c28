"""`model.language=DIR_OR_HUB_NAME` and `model.vision=DIR_OR_HUB_NAME` take what the directory decides, and no more."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading

import pytest
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from neva_recipes import llava, parts
from neva_recipes.config import CheckpointError, build, recipe_to_yaml
from tests.families.packages import install

LLAMA = {
    "num_hidden_layers": 3,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 321,
    "max_position_embeddings": 640,
    "rope_theta": 5e5,
    "rms_norm_eps": 1e-6,
}
LANGUAGE = {
    "family": "llama",
    "num_layers": 3,
    "hidden_size": 48,
    "ffn_hidden_size": 96,
    "num_attention_heads": 4,
    "num_query_groups": 2,
    "kv_channels": 16,
    "vocab_size": 321,
    "max_position_embeddings": 640,
    "rotary_base": 5e5,
    "layernorm_epsilon": 1e-6,
}
"""The same in the recipe's words."""

CLIP = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 40, "num_attention_heads": 2, "image_size": 28}
TOWER = {"num_layers": 2, "hidden_size": 32, "ffn_hidden_size": 40, "image_size": 28, "patch_size": 14}


@pytest.fixture
def models(folder):
    """A language model, a tower, and the configuration of a LLaVA of both."""
    text, vision = LlamaConfig(**LLAMA), CLIPVisionConfig(**CLIP, patch_size=14)
    LlamaForCausalLM(text).save_pretrained(folder / "a llama")
    CLIPVisionModel(vision).save_pretrained(folder / "clip")
    LlavaConfig(text_config=text, vision_config=vision).save_pretrained(folder / "llava")
    return folder


def fields(nemo_run, *words, env=None):
    done = nemo_run(*words, "--dry-run", "--format", "json", env=env)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)["recipe"]["model"]


def test_the_directory_decides_the_shape_and_the_recipe_the_rest(models, nemo_run):
    before = fields(nemo_run, "llava.pretrain", "size=tiny")
    words = ["model.language.num_layers=2", "model.language=a llama", "model.vision=clip"]
    model = fields(nemo_run, "llava.pretrain", "size=tiny", *words)
    language = {**LANGUAGE, "num_layers": 2, "from_pretrained": str(models / "a llama")}
    assert language.items() <= model["language"].items() and TOWER.items() <= model["vision"].items()
    assert model["language"]["freeze"] is before["language"]["freeze"] is True
    kept = before["language"].keys() - language.keys()
    assert {name: model["language"][name] for name in kept} == {name: before["language"][name] for name in kept}
    assert model["projector"] == before["projector"]


def test_positions_come_as_a_group(models, nemo_run):
    file = models / "a llama" / "config.json"
    yarn = {"rope_type": "yarn", "rope_theta": 5e5, "factor": 2.0, "original_max_position_embeddings": 320}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rope_parameters": yarn}))
    words = ["llava.pretrain", "size=tiny", "model.language=a llama", "model.language.rope.beta_slow=2"]
    rope = fields(nemo_run, *words)["language"]["rope"]
    told = {"kind": "yarn", "factor": 2.0, "original_max_position_embeddings": 320, "beta_slow": 2.0}
    assert {name: value for name, value in rope.items() if value is not None} == told | {"partial_rotary_factor": 1.0}
    assert build(parts.from_huggingface(str(models / "a llama"))).rope.kind == "yarn"


def test_a_model_keeps_nothing_of_the_one_before_it(folder, nemo_run):
    linear = {"rope_type": "linear", "rope_theta": 5e5, "factor": 2.0}
    shape = {key: value for key, value in LLAMA.items() if key != "rope_theta"}
    MistralConfig(**shape, rope_parameters=linear, sliding_window=64).save_pretrained(folder / "mistral")
    GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=512).save_pretrained(folder / "gpt2")
    (folder / "own.py").write_text(
        "from neva_recipes import gpt, parts\n"
        "def mine():\n"
        "    recipe = gpt.pretrain(size='tiny')\n"
        "    recipe.model.language = parts.from_huggingface('mistral')\n"
        "    return recipe\n"
    )
    words = ["--recipes", "own.py", "own.mine"]
    before = fields(nemo_run, *words)["language"]
    assert (before["kv_channels"], before["sliding_window"], before["rope"]["kind"]) == (16, 64, "linear")
    plain = {"kv_channels": None, "sliding_window": None, "rotary_base": 1e4, "rope_scaling_factor": None, "rope": None}
    assert plain.items() <= fields(nemo_run, *words, "model.language=gpt2")["language"].items()


def test_images_of_another_size_than_the_positions_of_a_tower(models, nemo_run):
    sizes = {key: size for key, size in CLIP.items() if key != "intermediate_size"}
    Dinov2Model(Dinov2Config(**{**sizes, "image_size": 70}, mlp_ratio=2)).save_pretrained(models / "dino")
    words = ["llava.pretrain", "size=tiny", "model.vision=dino"]
    assert fields(nemo_run, *words)["vision"]["image_size"] == 70
    told = {"vision_model_type": "dinov2", "ffn_hidden_size": 64, "image_size": 42, "position_image_size": 70}
    assert told.items() <= fields(nemo_run, *words, "model.vision.image_size=42")["vision"].items()
    (models / "own.py").write_text(
        "from neva_recipes import llava, parts\n"
        "def mine():\n"
        "    recipe = llava.pretrain(size='tiny')\n"
        "    recipe.model.vision = parts.tower_from_huggingface('dino')\n"
        "    return recipe\n"
    )
    after = fields(nemo_run, "--recipes", "own.py", "own.mine", "model.vision=clip")["vision"]
    assert {**TOWER, "position_image_size": None}.items() <= after.items()


def test_both_parts_of_a_llava(models, nemo_run):
    model = fields(nemo_run, "llava.finetune", "size=tiny", "model.language=llava", "model.vision=llava")
    assert LANGUAGE.items() <= model["language"].items() and TOWER.items() <= model["vision"].items()


def test_python_gives_the_same_without_torch(models):
    assert LANGUAGE.items() <= vars(build(parts.from_huggingface(str(models / "a llama")))).items()
    assert TOWER.items() <= vars(build(parts.tower_from_huggingface(str(models / "clip")))).items()
    code = (
        "import sys; from neva_recipes import parts; parts.from_huggingface(sys.argv[1]); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, models / "a llama"], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("model.language=nowhere", "model.language=nowhere: no such directory (a name on the Hugging Face hub looks"),
        ("model.language=./nowhere", "model.language=./nowhere: no such directory (a name on the Hugging Face hub"),
        ("model.language=clip/nothing", "model.language=clip/nothing: no such directory (a name on the Hugging Face"),
        ("model.language=clip/config.json", "model.language=clip/config.json: is a file, expected the directory"),
        ("model.language=clip", "model.language=clip: holds a CLIPVisionModel, no language model"),
        ("model.vision=a llama", "model.vision=a llama: holds a LlamaForCausalLM, no vision tower"),
        ("model.vision=empty", "model.vision=empty: empty/config.json: is missing"),
        ("model.language=scaled", "rope_type is unheard, only default, linear, dynamic, llama3, yarn and longrope"),
        ("model.language=some", "looks like owner/name); if it is a run, set model.language.from_pretrained=some"),
        ("model.vision=a run", "is a run, expected a Hugging Face directory: set model.vision.from_pretrained='a run'"),
        ("model.projector=llava", "model.projector=llava: is a group of fields, set one of them"),
    ],
)
def test_one_line_says_why_not(models, nemo_run, word, error):
    (models / "empty").mkdir()
    (models / "a run").mkdir()
    (models / "a run/recipe.yaml").write_text(recipe_to_yaml(llava.pretrain("tiny")))
    shutil.copytree(models / "a llama", models / "scaled")
    config = json.loads((models / "scaled/config.json").read_text())
    config["rope_parameters"] = {"rope_type": "unheard", "rope_theta": 1e4}
    (models / "scaled/config.json").write_text(json.dumps(config))
    done = nemo_run("llava.finetune", "size=tiny", word, "--dry-run", check=2)
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: model.") and error in line
    with pytest.raises(CheckpointError, match="no such directory"):
        parts.from_huggingface("nowhere")


def test_the_template_of_a_family_comes_with_it(models, nemo_run, tmp_path):
    source = """
        import dataclasses
        from neva_recipes.families.llama import LLAMA
        LAB = dataclasses.replace(LLAMA, name="lab", model_type="lab", conv_template="chatml",
            keys=dataclasses.replace(LLAMA.keys, architectures=()))
    """
    install(tmp_path / "package", "lab", source)
    config = json.loads((models / "a llama/config.json").read_text())
    (models / "a llama/config.json").write_text(json.dumps({**config, "model_type": "lab", "architectures": []}))
    given = {"PYTHONPATH": f"{tmp_path / 'package'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    for stage, words, template in (
        ("finetune", [], "chatml"),
        ("finetune", ["data.conv_template=llama_3"], "llama_3"),
        ("pretrain", [], "plain"),
    ):
        words = [f"llava.{stage}", "size=tiny", "model.language=a llama", *words, "--dry-run", "--format", "json"]
        done = nemo_run(*words, env=given)
        assert done.stdout, done.stderr
        recipe = json.loads(done.stdout)["recipe"]
        assert recipe["model"]["language"]["family"] == "lab"
        assert recipe["data"]["conv_template"] == template


@pytest.mark.parametrize(
    ("config", "template"), [(Qwen2Config, "chatml"), (Qwen3Config, "chatml"), (MistralConfig, "mistral_instruct")]
)
def test_families_with_one_template(config, template, folder, nemo_run):
    config(**{name: value for name, value in LLAMA.items() if name != "head_dim"}).save_pretrained(folder / "model")
    words = ["llava.finetune", "size=tiny", "model.language=model", "--dry-run", "--format", "json"]
    recipe = json.loads(nemo_run(*words).stdout)["recipe"]
    assert recipe["model"]["language"]["family"] == config.model_type
    assert recipe["data"]["conv_template"] == template


def test_a_template_that_a_file_names_stays(folder, nemo_run):
    (folder / "mine.yaml").write_text(recipe_to_yaml(llava.finetune("tiny")))
    Qwen2Config(**{name: value for name, value in LLAMA.items() if name != "head_dim"}).save_pretrained(
        folder / "model"
    )
    words = ["mine.yaml", "model.language=model", "--dry-run", "--format", "json"]
    recipe = json.loads(nemo_run(*words).stdout)["recipe"]
    assert recipe["model"]["language"]["family"] == "qwen2"
    assert recipe["data"]["conv_template"] == "v1"


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub with one model, of which only the configuration may be fetched."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.server.asked.append(self.path)
        found = self.path == "/lab/small/resolve/main/config.json"
        self.send_response(200 if found else 404)
        body = self.server.config if found else b""
        for name, value in {"ETag": '"1"', "X-Repo-Commit": "c" * 40, "Content-Length": len(body)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


def test_a_name_on_the_hub_is_described_by_its_config_json(models, nemo_run):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.config, server.asked = (models / "a llama/config.json").read_bytes(), []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub = {
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(models / "home"),
    }
    words = ["gpt.pretrain", "size=tiny", "model.language=lab/small"]
    language = fields(nemo_run, *words, env=hub)["language"]
    assert {**LANGUAGE, "from_pretrained": "lab/small"}.items() <= language.items()
    assert {path for path in server.asked if "lab" in path} == {"/lab/small/resolve/main/config.json"}
    done = nemo_run("gpt.pretrain", "size=tiny", "model.language=lab/other", "--dry-run", env=hub, check=2)
    server.shutdown()
    assert done.stderr.startswith("error: model.language=lab/other: no such directory here, and its config.json cannot")
    assert len(done.stderr.splitlines()) == 1
    assert "hf download lab/other --local-dir DIR makes a directory to name instead" in done.stderr
    offline = nemo_run("gpt.pretrain", "size=tiny", "model.language=lab/other", "--dry-run", check=2).stderr
    reason = offline.partition("from the Hugging Face hub: ")[2].partition("; where there is a network")[0]
    assert reason and (not reason.endswith(" ...") or reason.removesuffix(" ...")[-1].isalnum())
    assert fields(nemo_run, *words, env={**hub, "HF_HUB_OFFLINE": "1"})["language"] == language
