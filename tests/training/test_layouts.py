"""The same training under every layout: TP, PP, SP, CP, virtual stages and DP against one process."""

from collections.abc import Callable
from pathlib import Path

import fiddle as fdl
import pytest
import torch

from neva_recipes.config import Recipe
from tests.training._results import losses, weights_of

MakeRecipe = Callable[..., fdl.Config[Recipe]]
Train = Callable[[fdl.Config[Recipe], Path], Path]

LAYOUTS = {
    "tp2": {"trainer__devices": 2, "parallel__tensor_model_parallel_size": 2},
    "pp2_uneven": {
        "trainer__devices": 2,
        "parallel__pipeline_model_parallel_size": 2,
        "parallel__num_layers_in_first_pipeline_stage": 3,
    },
    "dp2": {"trainer__devices": 2, "parallel__use_distributed_optimizer": True},
    "cp2_exchange": {
        "trainer__devices": 2,
        "parallel__context_parallel_size": 2,
        "parallel__cp_comm_type": "a2a",
    },
    "cp2_tp2_sp": {
        "trainer__devices": 4,
        "parallel__context_parallel_size": 2,
        "parallel__tensor_model_parallel_size": 2,
        "parallel__sequence_parallel": True,
    },
    "cp2_pp2_vp2": {
        "trainer__devices": 4,
        "parallel__context_parallel_size": 2,
        "parallel__pipeline_model_parallel_size": 2,
        "parallel__virtual_pipeline_model_parallel_size": 2,
    },
    "dp2_pp2_vp2": {
        "trainer__devices": 4,
        "parallel__pipeline_model_parallel_size": 2,
        "parallel__virtual_pipeline_model_parallel_size": 2,
        "parallel__overlap_grad_reduce": True,
        "parallel__overlap_param_gather": True,
    },
    "tp2_pp2": {
        "trainer__devices": 4,
        "parallel__tensor_model_parallel_size": 2,
        "parallel__pipeline_model_parallel_size": 2,
    },
}
# The first step of the warm-up has a learning rate of zero, so the checkpoint after it holds the initial weights.
SETTINGS = {
    "optim__warmup_steps": 1,
    "optim__warmup_ratio": "none",
    "checkpoint__every_n_train_steps": 1,
    "checkpoint__save_top_k": -1,
    "data__micro_batch_size": 2,
    "model__language__num_layers": 4,
    "trainer__ema_decay": 0.9,
}
TRAINED_PARTS = {"finetune": ("language.", "projector."), "pretrain": ("projector.",)}


def largest_difference(run: Path, reference: Path) -> float:
    pairs = zip(losses(run), losses(reference), strict=True)
    return max(abs(ours - theirs) for ours, theirs in pairs)


@pytest.mark.multiprocess
@pytest.mark.slow
@pytest.mark.parametrize("stage", ["finetune", "pretrain"])
def test_layouts_equal_one_process(stage: str, make_recipe: MakeRecipe, train: Train, tmp_path: Path) -> None:
    reference = train(make_recipe(stage, **SETTINGS), tmp_path / "one")
    initial = weights_of(reference / "checkpoints" / "step-00000001")
    final = weights_of(reference / "checkpoints" / "step-00000010")
    layouts = LAYOUTS if stage == "finetune" else {name: LAYOUTS[name] for name in ("tp2_pp2", "cp2_pp2_vp2")}
    for name, fields in layouts.items():
        run = train(make_recipe(stage, **SETTINGS, **fields), tmp_path / name)
        difference = largest_difference(run, reference)
        print(f"{stage} {name}: largest difference of the loss {difference:.1e}")
        assert difference <= 1e-5, name
        ours_initial = weights_of(run / "checkpoints" / "step-00000001")
        ours_final = weights_of(run / "checkpoints" / "step-00000010")
        assert ours_initial.keys() == initial.keys() == ours_final.keys() == final.keys()
        for weight in initial:
            assert torch.equal(ours_initial[weight], initial[weight]), f"{name}: initial {weight}"
            changed = not torch.equal(ours_final[weight], ours_initial[weight])
            assert changed == weight.startswith(TRAINED_PARTS[stage]), f"{name}: {weight}"
            assert torch.allclose(ours_final[weight], final[weight], atol=1e-5), f"{name}: final {weight}"
