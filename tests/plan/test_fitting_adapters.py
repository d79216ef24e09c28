"""Where all weights are too many to train, the plan and `nemo-run fit` tell which adapters fit, and these do."""

import re

import pytest

from neva_recipes.cli.main import main
from neva_recipes.config import build
from neva_recipes.plan import plan
from neva_recipes.plan.checks import with_values
from neva_recipes.plan.fitting.fit import search_layouts
from tests.plan.wrong_fields import make


def words_of(text):
    found = re.search(r"adapters beside fixed weights fit: (.*?)(;|$)", " ".join(text.split()))
    return None if found is None else found[1]


@pytest.mark.parametrize(
    ("recipe", "gpu", "number", "words"),
    [
        ("llava.finetune", "a100-40g", 1, "model.language.lora.rank=128 optim.lr=0.0002"),
        ("llava.finetune", "rtx-4090", 1, "model.language.lora.rank=128 optim.lr=0.0002 model.language.quantize=nf4"),
        ("llava.lora", "rtx-4090", 1, "model.language.quantize=nf4"),
        ("llava.qlora 13b", "t4", 1, None),
    ],
)
def test_what_fit_offers_fits(recipe, gpu, number, words, capsys):
    name, _, size = recipe.partition(" ")
    flags = ["--gpus", str(number), "--gpu", gpu, "--gpus-per-node", str(number)]
    assert main(["fit", name, *([f"size={size}"] if size else []), *flags]) == 2
    told = words_of(capsys.readouterr().err)
    assert told == words
    if told is not None:
        changed = make(recipe, told)
        assert search_layouts(changed, gpus=number, gpu=gpu, gpus_per_node=number).candidates


def memory_finding(*changes):
    found = plan(build(make("llava.finetune", " ".join(changes))), gpu="rtx-4090").findings
    return next((finding for finding in found if finding.code == "memory"), None)


def test_what_the_finding_on_memory_offers_fits():
    told = words_of(memory_finding().advice)
    assert told == "model.language.lora.rank=128 optim.lr=0.0002 data.micro_batch_size=2"
    assert memory_finding(told) is None


def test_a_recipe_in_fp8_is_offered_none():
    from neva_recipes.plan.fitting.adapters import with_adapters

    recipe = build(make("llava.finetune"))
    assert list(with_adapters(recipe))
    assert not list(with_adapters(with_values(recipe, {"precision.fp8": "hybrid"})))
