"""Each of these families goes from a dry run to an export through the command."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from executors import find_run
from neva_recipes.run_directory.metrics import TRAIN_LOSS
from tests.end_to_end.world import make_world, nemo_run
from tests.families.fused_models import save

TEXT = [
    *("gpt.pretrain", "size=tiny", "data.data_path=text.txt", "data.sequence_length=32"),
    *("data.global_batch_size=8", "data.micro_batch_size=4", "trainer.max_steps=2", "trainer.log_every_n_steps=1"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = make_world(tmp_path_factory.mktemp("world"))
    (world.folder / "text.txt").write_text("\n".join(["Which colour is this? A red picture."] * 400))
    return world


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize(("family", "shape"), [("internlm2", "grouped"), ("phi3", "grouped"), ("gpt2", "as published")])
def test_it_goes_from_a_dry_run_to_an_export(family, shape, world):
    oracle = save(family, shape, world.folder / family)
    words = [*TEXT, f"model.language={family}", f"data.tokenizer={world.tokenizer.name}"]
    words += ["parallel.tensor_model_parallel_size=2", "trainer.devices=2"]
    planned = json.loads(nemo_run(*words, "--dry-run", "--format", "json", cwd=world.folder).stdout)
    assert planned["plan"]["parameters"][0]["total"] == oracle.num_parameters()

    nemo_run(*words, "--name", f"run of {family}", cwd=world.folder)
    nemo_run("resume", f"run of {family}", "trainer.max_steps=4", cwd=world.folder)
    nemo_run("export", f"run of {family}", f"exported {family}", cwd=world.folder)
    assert len(find_run(f"run of {family}", world.folder / "runs").metrics()[TRAIN_LOSS].values) == 4
    exported = AutoModelForCausalLM.from_pretrained(world.folder / f"exported {family}")
    assert type(exported) is type(oracle)
    start = oracle.state_dict()
    written = load_file(world.folder / f"exported {family}" / "model.safetensors")
    for name, weight in written.items():
        assert weight.shape == start[name].shape
        assert not torch.equal(weight, start[name]), f"{name} was not trained"
        assert torch.allclose(weight.float(), start[name], atol=0.02), f"{name} did not begin from the directory"
