"""The same training under every layout: TP, PP, SP, CP, virtual stages and DP against one process."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import fiddle as fdl
import pytest
import torch

from neva_recipes.config import Recipe
from neva_recipes.families import language_families
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
SETTINGS = {
    "optim__warmup_steps": 1,
    "optim__warmup_ratio": "none",
    "data__micro_batch_size": 2,
    "model__language__num_layers": 4,
    "trainer__ema_decay": 0.9,
    "trainer__limit_val_batches": 1,
}
# The first step of the warm-up has a learning rate of zero, so the checkpoint after it holds the initial weights.
SAVE_INITIAL = {"checkpoint__every_n_train_steps": 1, "checkpoint__save_top_k": -1}
TRAINED_PARTS = {"finetune": ("language.", "projector."), "pretrain": ("projector.",)}


def largest_difference(run: Path, reference: Path) -> float:
    pairs = zip(losses(run), losses(reference), strict=True)
    return max(abs(ours - theirs) for ours, theirs in pairs)


@pytest.mark.multiprocess
@pytest.mark.slow
@pytest.mark.parametrize("stage", ["finetune", "pretrain"])
def test_layouts_equal_one_process(
    stage: str, make_recipe: MakeRecipe, train: Train, digits: Path, tmp_path: Path
) -> None:
    make_recipe = partial(make_recipe, stage, data__validation_data_path=digits / f"{stage}.json", **SETTINGS)
    layouts = LAYOUTS if stage == "finetune" else {name: LAYOUTS[name] for name in ("tp2_pp2", "cp2_pp2_vp2")}
    recipes = {name: make_recipe(**fields) for name, fields in layouts.items()}
    reference = train(make_recipe(**SAVE_INITIAL), tmp_path / "one", **recipes)
    initial = weights_of(reference / "checkpoints" / "step-00000001")
    final = weights_of(reference / "checkpoints" / "step-00000010")
    average = weights_of(reference / "checkpoints" / "step-00000010", "average.")
    for name in layouts:
        run = tmp_path / name
        difference = largest_difference(run, reference)
        print(f"{stage} {name}: largest difference of the loss {difference:.1e}")
        assert difference <= 1e-5, name
        [validation], [expected] = losses(run, "val_loss"), losses(reference, "val_loss")
        assert abs(validation - expected) <= 1e-5, name
        ours_final = weights_of(run / "checkpoints" / "step-00000010")
        assert initial.keys() == ours_final.keys() == final.keys()
        for weight in initial:
            changed = not torch.equal(ours_final[weight], initial[weight])
            assert changed == weight.startswith(TRAINED_PARTS[stage]), f"{name}: {weight}"
            assert torch.allclose(ours_final[weight], final[weight], atol=1e-5), f"{name}: final {weight}"
        ours_average = weights_of(run / "checkpoints" / "step-00000010", "average.")
        assert ours_average.keys() == average.keys()
        for weight in average:
            assert not torch.equal(average[weight], final[weight]), weight
            assert torch.allclose(ours_average[weight], average[weight], atol=1e-5), f"{name}: average {weight}"


OF_FAMILIES = {
    "mistral": {"model__language__sliding_window": 12},
    "gpt2": {
        "model__language__num_query_groups": 4,
        "model__language__share_embeddings_and_output_weights": True,
    },
}
"""Fields that only some families have, or have otherwise."""


@pytest.mark.multiprocess
@pytest.mark.slow
def test_layouts_of_every_family_equal_one_process(make_recipe: MakeRecipe, train: Train, tmp_path: Path) -> None:
    layouts = {name: LAYOUTS[name] for name in ("tp2", "pp2_uneven", "tp2_pp2")}
    sizes = {"model__language__num_layers": 4, "model__language__num_query_groups": 2}
    # Llama is compared above, and with more layouts.
    families = [family.name for family in language_families() if family.name != "llama"]
    runs = [(family, name) for family in families for name in ("one", *layouts)]
    # Its biases and its positions are whole on every rank.
    runs.append(("gpt2", "cp2_tp2_sp"))
    recipes = {
        f"{family} {name}": make_recipe(
            **{**sizes, **OF_FAMILIES.get(family, {})}, model__language__family=family, **LAYOUTS.get(name, {})
        )
        for family, name in runs
    }
    first = next(iter(recipes))
    train(recipes.pop(first), tmp_path / first, **recipes)
    for family, name in runs:
        difference = largest_difference(tmp_path / f"{family} {name}", tmp_path / f"{family} one")
        print(f"{family} {name}: largest difference of the loss {difference:.1e}")
        assert difference <= 1e-5, (family, name)
