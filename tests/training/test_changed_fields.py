"""What a changed field does to a run that goes on, held to what the table of the plan says of it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiddle as fdl
import pytest
import torch

from neva_recipes.config import Recipe
from neva_recipes.plan.resuming import EFFECTIVE, UNUSED
from tests.training._results import losses, tensors

MakeRecipe = Callable[..., fdl.Config[Recipe]]

pytestmark = pytest.mark.slow

HALF, STEPS = 2, 4
BASE = {
    "trainer__max_steps": STEPS,
    "data__group_by_modality_length": "false",
    "optim__warmup_ratio": "none",
    "optim__warmup_steps": 1,
    "optim__lr": 1e-2,
    "optim__clip_grad": 0.5,
}

DIFFERENT = {
    "model.language.hidden_dropout": "0.1",
    "model.language.attention_dropout": "0.1",
    "data.data_path": "{digits}/pretrain.json",
    "data.sequence_length": "72",
    "data.global_batch_size": "12",
    "data.dataloader_type": "single",
    "data.image_folder": "{digits}/other",
    "data.conv_template": "llava_llama_2",
    "optim.lr": "2e-2",
    "optim.min_lr": "5e-3",
    "optim.lr_decay_style": "linear",
    "optim.lr_decay_steps": "20",
    "optim.warmup_steps": "4",
    "optim.warmup_ratio": "0.9 optim.warmup_steps=none",
    "optim.weight_decay": "0.5",
    "optim.adam_beta1": "0.5",
    "optim.adam_beta2": "0.9",
    "optim.adam_eps": "1e-2",
    "optim.clip_grad": "0.01",
    "trainer.seed": "7",
}
"""Fields that change what is trained, each with a value that must."""

SAME = {
    "name": "other",
    "model.recompute_granularity": "selective model.recompute_modules=mlp",
    "data.micro_batch_size": "8",
    "data.num_workers": "1",
    "data.on_bad_sample": "skip",
    "trainer.log_every_n_steps": "2",
    "trainer.ema_decay": "0.5",
    "trainer.profiler": "simple",
    "trainer.enable_progress_bar": "false",
    "data.validation_data_path": "{digits}/held_out.json",
    "trainer.val_check_interval": "1",
    "trainer.limit_val_batches": "1",
    "trainer.val_before_training": "true",
    "trainer.accelerator": "cpu",
    "checkpoint.every_n_train_steps": "3",
    "checkpoint.save_top_k": "-1",
}
"""Fields that change how it is trained or what is kept of it, changed all at once."""

NOWHERE = {
    "model.language.init_method_std": "0.5",
    "model.language.from_pretrained": "{digits}/tokenizer",
    "model.vision.image_token_len": "16",
    "model.vision.from_pretrained": "{digits}/tokenizer",
    "model.projector.from_pretrained": "{digits}/tokenizer",
    "parallel.cp_comm_type": "a2a",
    "precision.grad_reduce_in_fp32": "false",
    "precision.fp8_margin": "1",
    "trainer.val_check_interval": "1",
    "checkpoint.mode": "max",
}
"""Fields without effect, changed all at once."""

ELSEWHERE = {
    # tests/training/test_layouts.py, test_resume.py
    "parallel.tensor_model_parallel_size",
    "parallel.pipeline_model_parallel_size",
    "parallel.virtual_pipeline_model_parallel_size",
    "parallel.num_layers_in_first_pipeline_stage",
    "parallel.num_layers_in_last_pipeline_stage",
    "parallel.context_parallel_size",
    "parallel.cp_comm_type",
    "parallel.sequence_parallel",
    "parallel.overlap_grad_reduce",
    "parallel.overlap_param_gather",
    "trainer.devices",
    "trainer.num_nodes",
    # test_lost_work.py
    "trainer.early_stopping_patience",
    "checkpoint.monitor",
    "checkpoint.mode",
    # The digits are square and their texts alike: tests/data/test_images.py, test_sampler.py
    "data.image_aspect_ratio",
    "data.group_by_modality_length",
    # adapters: test_adapters.py, tests/adapters
    "model.language.lora.dropout",
    "model.language.lora.from_pretrained",
    "model.vision.lora.dropout",
    "model.vision.lora.from_pretrained",
    # conversations are not blended: tests/token_data/test_plan_of_tokens.py
    "data.blend",
    # the length: below, and test_stop.py
    "trainer.max_steps",
    "trainer.max_epochs",
    "model.recompute_method",
    "model.recompute_num_layers",
    "model.recompute_modules",
    # the same vocabulary from another place: below
    "data.tokenizer",
    "model.language.make_vocab_size_divisible_by",
    "checkpoint.save_last",
    "checkpoint.train_time_interval_minutes",
    # an account, or a GPU
    "logging.wandb_project",
    "logging.wandb_entity",
    "precision.fp8",
    "precision.grad_reduce_in_fp32",
}


def test_every_field_is_tried_or_stands_elsewhere() -> None:
    gpus = {path for path in UNUSED if path.startswith("precision.")}
    tried = {*DIFFERENT, *SAME, *NOWHERE}
    assert {*EFFECTIVE, *UNUSED} == (tried | ELSEWHERE | gpus)


def changed(make_recipe: MakeRecipe, digits: Path, fields: dict[str, str]) -> fdl.Config[Recipe]:
    settings: dict[str, object] = {}
    for path, text in fields.items():
        for word in f"{path}={text.format(digits=digits)}".split(" "):
            name, _, value = word.partition("=")
            settings[name.replace(".", "__")] = value
    return make_recipe("finetune", **{**BASE, **settings})


@pytest.fixture(scope="module")
def runs(make_recipe: MakeRecipe, digits: Path, train: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that went on from one checkpoint, each in the folder of the field that was changed."""
    folder = tmp_path_factory.mktemp("changed")
    if not (digits / "other").exists():
        (digits / "other").mkdir()
        names = sorted((digits / "images").iterdir())
        for image, stand_in in zip(names, reversed(names), strict=True):
            (digits / "other" / image.name).symlink_to(stand_in)
    half = make_recipe("finetune", **BASE, checkpoint__every_n_train_steps=HALF, checkpoint__save_top_k=-1)
    start = train(half, folder / "start") / "checkpoints" / f"step-{HALF:08d}"
    recipes = {"none": changed(make_recipe, digits, {})}
    recipes |= {path: changed(make_recipe, digits, {path: text}) for path, text in DIFFERENT.items()}
    recipes |= {"same": changed(make_recipe, digits, SAME), "nowhere": changed(make_recipe, digits, NOWHERE)}
    for name in recipes:
        shutil.copytree(start, folder / name / "checkpoints" / start.name)
    train(recipes.pop("none"), folder / "none", **recipes)
    return folder


def trained(run: Path) -> dict[str, torch.Tensor]:
    found = tensors(run / "checkpoints" / f"step-{STEPS:08d}")
    return {name: tensor for name, tensor in found.items() if name.startswith(("language.", "projector."))}


def test_a_field_that_is_effective_changes_the_weights(runs: Path) -> None:
    unchanged = trained(runs / "none")
    assert all(torch.equal(tensor, trained(runs / "start")[name]) for name, tensor in unchanged.items())
    for path in DIFFERENT:
        ours = trained(runs / path)
        assert not all(torch.equal(ours[name], unchanged[name]) for name in unchanged), path
        assert f"changed: {path}=" in (runs / path / "rank-0.log").read_text()


def test_a_field_without_effect_is_told_to_have_none(runs: Path) -> None:
    unchanged, ours = trained(runs / "none"), trained(runs / "nowhere")
    assert all(torch.equal(ours[name], unchanged[name]) for name in unchanged)
    log = (runs / "nowhere" / "rank-0.log").read_text()
    for path in NOWHERE:
        assert f"{path}=" in log and "has no effect on a run that goes on" in log.split(f"{path}=")[1].split("\n")[0]


def test_fields_that_change_everything_but_the_weights(runs: Path) -> None:
    unchanged, run = trained(runs / "none"), runs / "same"
    ours = trained(run)
    assert all(torch.allclose(ours[name], unchanged[name], atol=1e-5) for name in unchanged)
    log = (run / "rank-0.log").read_text()
    assert "training other:" in log and f"step {STEPS}/" not in log  # no progress
    assert len(losses(run, "val_loss")) == 2 and len(losses(run)) == 1
    assert sorted(path.name[-1] for path in (run / "checkpoints").iterdir()) == ["2", "3", "4"]
    assert list(run.glob("*profile*"))
    # Averages that were not kept before begin with the first step: half old, half new from the second on.
    information = json.loads((run / "checkpoints" / f"step-{STEPS:08d}" / "checkpoint.json").read_text())
    assert information["has_average"]
    final, third = (tensors(run / "checkpoints" / f"step-{step:08d}") for step in (STEPS, STEPS - 1))
    averages = [name for name in final if name.startswith("average.")]
    assert averages
    for name in averages:
        weight = name.removeprefix("average.")
        assert torch.allclose(final[name], (third[weight] + final[weight]) / 2, atol=1e-6), name
