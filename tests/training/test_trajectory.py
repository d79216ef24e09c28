"""Twenty steps of the worker against a plain PyTorch loop on transformers' LLaVA: same weights, data and AdamW."""

from collections.abc import Callable
from pathlib import Path

import fiddle as fdl
import pytest
import torch
from transformers import get_cosine_schedule_with_warmup

from neva_model.data import build_train_loader
from neva_model.tokenizers import load_recipe_tokenizer
from neva_recipes.config import Recipe, build, load_recipe
from tests.model.model_cases import hf_llava
from tests.training._results import losses

STEPS = 20
TRAINED = {
    "finetune": ("model.language_model", "model.multi_modal_projector", "lm_head"),
    "pretrain": ("model.multi_modal_projector",),
}


def plain_loop(recipe: Recipe, directory: Path, stage: str, cache: Path) -> list[float]:
    """Return the losses of a training loop written with transformers and torch.optim alone."""
    model = hf_llava(recipe).__class__.from_pretrained(directory, attn_implementation="eager").train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(TRAINED[stage]))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.optim.lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    scheduler = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=1, num_training_steps=STEPS)
    return steps_of(model, recipe, trained, optimizer, scheduler, cache)


def steps_of(
    model: torch.nn.Module,
    recipe: Recipe,
    trained: list[torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    cache: Path,
) -> list[float]:
    """Train a model of transformers for some steps on the batches of a recipe, and return the losses."""
    loader = iter(
        build_train_loader(
            recipe,
            load_recipe_tokenizer(recipe),
            run_dir=cache,
            data_parallel_rank=0,
            data_parallel_size=1,
            consumed_samples=0,
            pad_to_multiple_of=1,
        )
    )
    found = []
    for _ in range(STEPS):
        microbatches = next(loader)
        supervised = sum(int((batch["labels"] != -100).sum()) for batch in microbatches)
        total = 0.0
        for batch in microbatches:
            tokens = batch["tokens"].where(batch["tokens"] != -200, model.config.image_token_index)
            logits = model(input_ids=tokens, pixel_values=batch["images"]).logits
            loss = torch.nn.functional.cross_entropy(
                logits[..., : recipe.model.language.vocab_size].flatten(0, 1),
                batch["labels"].flatten(),
                reduction="sum",
            )
            (loss / supervised).backward()
            total += loss.item() / supervised
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        found.append(total)
    return found


@pytest.fixture(scope="module")
def folder(
    make_recipe: Callable[..., fdl.Config[Recipe]],
    train: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of a run of each stage, and of the transformers model that it begins with."""
    folder, recipes = tmp_path_factory.mktemp("trajectory"), {}
    for stage in TRAINED:
        directory = folder / f"hf-{stage}"
        source = {f"model__{part}__from_pretrained": directory for part in ("language", "vision", "projector")}
        recipes[stage] = make_recipe(stage, trainer__max_steps=STEPS, **source)
        hf_llava(build(recipes[stage])).save_pretrained(directory)
    train(recipes["finetune"], folder / "finetune", pretrain=recipes["pretrain"])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("stage", TRAINED)
def test_losses_equal_a_plain_loop_with_transformers(stage: str, folder: Path, tmp_path: Path) -> None:
    recipe = build(load_recipe(folder / stage / "recipe.yaml"))
    expected = plain_loop(recipe, folder / f"hf-{stage}", stage, tmp_path)
    ours = losses(folder / stage)
    assert len(ours) == STEPS
    assert ours[-1] < ours[0] - 0.1
    difference = max(abs(a - b) for a, b in zip(ours, expected, strict=True))
    print(f"{stage}: largest difference of the loss in {STEPS} steps {difference:.1e}")
    assert difference <= 1e-4
