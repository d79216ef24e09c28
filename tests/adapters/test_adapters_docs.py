"""The example, the commands and the names of weights in docs/adapters.md do what it says."""

import re
import shlex
from pathlib import Path

import pytest

from neva_recipes.cli.main import main
from neva_recipes.config import build, set_field
from neva_recipes.plan.checks import check_recipe
from neva_recipes.plan.cost.parameters import count_parameters
from neva_recipes.registry import find_recipe

TEXT = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [
    shlex.split(line) for line in re.findall(r"^    \$ nemo-run (llava\.\w+ .*|attention .*)$", TEXT, re.MULTILINE)
]
RATES = re.findall(r"^\| `(optim\.lr_of\..*?)=(.*?)` \|", TEXT, re.MULTILINE)


def test_the_example_trains_what_it_says(tmp_path, monkeypatch, capsys):
    names = {}
    exec(EXAMPLE, names)
    (language, *_) = count_parameters(build(names["attention"](rank=16)))
    # In each of 16 layers four weights of 4096 x 4096, each with matrices of 16 x 4096 and 4096 x 16.
    assert (language.part, language.trained) == ("language", 16 * 4 * 2 * 16 * 4096)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "attention.py").write_text(EXAMPLE)
    (command,) = (words for words in COMMANDS if words[0] == "attention")
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "rank: 16 " in shown and "layers: 16-31 " in shown


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[0] != "attention"], ids=" ".join)
def test_the_commands_start_from_trained_weights(words):
    name, *rest = words
    settings = dict(word.split("=", 1) for word in rest)
    recipe = find_recipe(name).make({"size": settings.pop("size")} if "size" in settings else {})
    for path, value in settings.items():
        set_field(recipe, path, value)
    told = {finding.code for finding in check_recipe(build(recipe))}
    assert "random-and-frozen" not in told and not {code for code in told if code.startswith(("lr-", "adapter-"))}


@pytest.mark.parametrize(("path", "rate"), RATES)
def test_the_names_of_rates_mean_weights_that_are_trained(path, rate):
    refused = []
    for name in ("llava.finetune", "llava.lora"):
        recipe = find_recipe(name).make({})
        recipe.model.vision.freeze = False
        set_field(recipe, path, rate)
        refused.append("lr-of" in {finding.code for finding in check_recipe(build(recipe))})
    # Those of one kind are refused where the other kind is trained.
    kinds = {"q_proj": [True, False], "linear_qkv": [False, True], "embedding": [False, True]}
    assert refused == kinds.get(path.rpartition(".")[2], [False, False])
