"""A family that an installed package declares, and what transformers computes of its models."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, SeedOssConfig, SeedOssForCausalLM

from executors import find_run
from neva_model.checkpoints.huggingface.pretrained import load_pretrained
from neva_model.checkpoints.huggingface.recipe import recipe_from_huggingface
from neva_model.model import build_model
from neva_recipes.plan import plan
from neva_recipes.plan.checks import with_values
from neva_recipes.run_directory.metrics import TRAIN_LOSS
from tests.end_to_end.world import make_world, nemo_run
from tests.exported_models import export_model
from tests.families.packages import install

ROWS = 320
"""Tokens of the tokenizer of the world."""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("package")
    install(folder)
    return folder


@pytest.fixture(scope="module")
def seed_oss(tmp_path_factory):
    """A directory with a Seed-OSS whose weights and biases all show in its logits."""
    torch.manual_seed(5)
    config = SeedOssConfig(
        num_hidden_layers=2,
        hidden_size=48,
        intermediate_size=96,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=12,
        vocab_size=ROWS,
        max_position_embeddings=256,
        rms_norm_eps=1e-5,
        initializer_range=0.2,
    )
    model = SeedOssForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    directory = tmp_path_factory.mktemp("seed_oss")
    model.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@torch.no_grad()
def test_its_model_computes_what_transformers_computes_and_is_exported_as_it_came(
    package, seed_oss, world, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(package)
    recipe = with_values(recipe_from_huggingface(seed_oss), {"precision.precision": "fp32"})
    assert recipe.model.language.family == "lab"
    oracle = SeedOssForCausalLM.from_pretrained(seed_oss).eval()
    assert plan(recipe).parameters[0].total == oracle.num_parameters()
    model = build_model(recipe, pre_process=True, post_process=True).eval()
    load_pretrained(model, recipe)
    tokens = torch.randint(3, ROWS, (2, 64))
    logits = model(tokens, torch.arange(64).expand(2, -1))[..., :ROWS]
    assert (logits - oracle(input_ids=tokens).logits).abs().max() <= 1e-4

    export_model(model, recipe, str(world.tokenizer), tmp_path / "out")
    there, back = (load_file(path / "model.safetensors") for path in (seed_oss, tmp_path / "out"))
    assert there.keys() == back.keys()
    assert [name for name in there if not torch.equal(there[name], back[name][: len(there[name])])] == []


@pytest.mark.slow
@pytest.mark.multiprocess
def test_it_goes_from_a_dry_run_to_an_export(package, seed_oss, world, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{package}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    (world.folder / "text.txt").write_text("\n".join(["Which colour is this? A red picture."] * 400))
    words = [
        *("gpt.pretrain", "size=tiny", "data.data_path=text.txt", f"data.tokenizer={world.tokenizer.name}"),
        *("data.sequence_length=32", "data.global_batch_size=8", "data.micro_batch_size=4", "trainer.max_steps=3"),
        *("model.language.family=lab", f"model.language.from_pretrained={seed_oss}", "trainer.log_every_n_steps=1"),
        *("model.language.num_layers=2", "model.language.hidden_size=48", "model.language.ffn_hidden_size=96"),
        *("model.language.num_query_groups=2", "model.language.max_position_embeddings=256"),
    ]
    planned = json.loads(nemo_run(*words, "--dry-run", "--format", "json", cwd=world.folder).stdout)
    count = sum(weight.numel() for weight in load_file(seed_oss / "model.safetensors").values())
    assert planned["plan"]["parameters"][0]["total"] == count

    two_ranks = ["parallel.tensor_model_parallel_size=2", "trainer.devices=2"]
    for name, layout in (("one", []), ("two", two_ranks)):
        nemo_run(*words, *layout, "--name", name, cwd=world.folder)
        nemo_run("resume", name, "trainer.max_steps=5", cwd=world.folder)
        nemo_run("export", name, f"exported {name}", cwd=world.folder)
    losses = [find_run(name, world.folder / "runs").metrics()[TRAIN_LOSS].values for name in ("one", "two")]
    assert len(losses[0]) == 5 and losses[0] == pytest.approx(losses[1], rel=1e-5)
    models = [AutoModelForCausalLM.from_pretrained(world.folder / f"exported {name}") for name in ("one", "two")]
    start = load_file(seed_oss / "model.safetensors")
    for (name, one), (_, two) in zip(*(model.named_parameters() for model in models), strict=True):
        assert torch.allclose(one, two, atol=1e-5), name
        assert not torch.equal(one[: len(start[name])], start[name]), f"{name} was not trained"
