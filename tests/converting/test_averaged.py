"""Averaged weights, which a run in bf16 keeps in fp32: what is compared is what is written of them."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from neva_model.checkpoints.average import average_shards
from neva_model.checkpoints.converting.convert import convert
from neva_model.checkpoints.distributed import save_sharded, sharding_metadata
from neva_model.checkpoints.information import CheckpointInformation
from neva_model.checkpoints.load import initialize_single_process
from neva_model.checkpoints.weights import CheckpointWeights
from neva_model.model import build_model
from neva_recipes.cli.main import main
from neva_recipes.config import CheckpointError, draft_of, recipe_to_yaml
from tests.converting.models import ROWS, World
from tests.model.model_cases import changed, text_recipe


@pytest.fixture
def averaged(world: World, tmp_path):
    """A checkpoint of a run in bf16, with averages that bf16 has no numbers for."""
    initialize_single_process()
    recipe = text_recipe(
        {"model.language.vocab_size": ROWS, "data.tokenizer": str(world.folder / "tokenizer.model")}
        | {"precision.precision": "bf16"}
    )
    # Built in fp32, for this machine may compute nothing else; its weights are saved as those of the run.
    model = build_model(changed(recipe, {"precision.precision": "fp32"}), pre_process=True, post_process=True)
    averages = [parameter.detach() * 1.001 for parameter in model.parameters()]
    model.to(torch.bfloat16)
    state = {
        "model": model.sharded_state_dict(metadata=sharding_metadata()),
        "average": average_shards(model, averages),
    }
    information = CheckpointInformation(
        step=1,
        consumed_samples=8,
        metrics={},
        projector_digest=None,
        world_size=1,
        tensor_model_parallel_size=1,
        pipeline_model_parallel_size=1,
        has_average=True,
    )
    save_sharded(state, tmp_path / "step-00000001", information, recipe_to_yaml(draft_of(recipe)))
    return tmp_path / "step-00000001", recipe


def test_averages_are_compared_as_they_are_written(averaged, tmp_path, capsys):
    checkpoint, recipe = averaged
    assert main(["convert", str(checkpoint), str(tmp_path / "out"), "--verify"]) == 0, capsys.readouterr().err
    written = load_file(tmp_path / "out" / "model.safetensors")["model.norm.weight"]
    held = CheckpointWeights(checkpoint, recipe).read("language.decoder.final_layernorm.weight")
    assert held.dtype == torch.float32 and not torch.equal(held.bfloat16().float(), held)
    assert written.dtype == torch.bfloat16 and torch.equal(written, held.bfloat16())
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.bfloat16


def test_averages_that_are_written_wrongly_are_found(averaged, tmp_path, monkeypatch):
    really = CheckpointWeights.read
    monkeypatch.setattr(CheckpointWeights, "read", lambda self, name: really(self, name) * (1 + ("fc2" in name) / 16))
    with pytest.raises(CheckpointError, match="its logits differ from those of"):
        convert(averaged[0], tmp_path / "out", verify=True)
    assert not (tmp_path / "out").exists()
