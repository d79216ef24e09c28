"""What the command says about itself."""

import dataclasses
import inspect
import re

import pytest

from neva_recipes import gpt, llava
from neva_recipes.cli.dispatch import COMMANDS
from neva_recipes.cli.fields import field_meanings
from neva_recipes.cli.main import main
from neva_recipes.config import DataConfig, LlavaDataConfig, LoraConfig, RopeConfig, iterate_fields

RECIPES = ["llava.pretrain", "llava.finetune", "neva.pretrain", "neva.finetune", "gpt.pretrain"]


@pytest.fixture
def say(folder, capsys):
    """Return a function that runs the command and returns what it printed, at most 80 columns wide."""

    def call(*arguments):
        assert main(list(arguments)) == 0
        text = capsys.readouterr().out
        assert max(map(len, text.splitlines())) <= 80
        return text

    return call


def test_first_screen(say):
    text = say()
    assert all(name in text for name in RECIPES)
    assert "nemo-run --help" in text
    assert len(text.splitlines()) <= 24


def test_main_help_names_commands_and_flags(say):
    text = say("--help")
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", text, re.MULTILINE), command
    for flag in ("--dry-run", "--detach", "--name", "--executor", "--recipes", "--runs-dir"):
        assert flag in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(say, command):
    text = say(command, "--help")
    assert text.startswith(f"usage: nemo-run {command}")
    assert "--help" in text


def test_list_names_recipes_and_origin(say):
    text = say("list")
    assert "built in:" in text
    assert [name for name in RECIPES if re.search(rf"^  {re.escape(name)} +\S", text, re.MULTILINE)] == RECIPES


@pytest.mark.parametrize(("recipe", "function"), [("llava.finetune", llava.finetune), ("gpt.pretrain", gpt.pretrain)])
def test_recipe_help_names_every_field_with_default_meaning_and_type(say, recipe, function):
    text = say(recipe, "--help")
    entries = dict(re.findall(r"^  (\S+=.*)\n((?:      .*\n?)+)", text, re.MULTILINE))
    settings = [setting for setting in entries if "." in setting.partition("=")[0]]
    paths = [field.path for field in iterate_fields(function()) if "." in field.path]
    # A group that its fields make is none, and yet has fields that can be set.
    for group, cls in {"language.rope": RopeConfig, "language.lora": LoraConfig, "vision.lora": LoraConfig}.items():
        if f"model.{group}" in paths:
            at = paths.index(f"model.{group}") + 1
            paths[at:at] = [f"model.{group}.{field.name}" for field in dataclasses.fields(cls)]
    assert [setting.partition("=")[0] for setting in settings] == paths
    for explanation in entries.values():
        assert re.fullmatch(r"[^\[]{8,} \[.+\]", " ".join(explanation.split())), explanation


def test_recipe_help_in_words(say):
    text = say("llava.finetune", "--help", "size=13b")
    for expected in (
        "  size=7b\n      Size of the language model. [one of 7b, 13b, tiny]\n",
        "  model.language.num_layers=40\n      Number of transformer layers. [an integer >= 1]\n",
        "  optim.lr=2e-05\n      Peak learning rate. [a number > 0]\n",
        "  trainer.max_epochs=none\n",
        "  model.vision.freeze=true\n      Keep these weights fixed. [true or false]\n",
        "optim: AdamW and its learning-rate schedule.\n",
    ):
        assert expected in text


def test_help_of_a_changed_recipe_shows_the_change(say):
    assert "  optim.lr=0.5\n" in say("gpt.pretrain", "optim.lr=0.5", "--help")


def test_meanings_come_from_the_source():
    source = inspect.getsource(LlavaDataConfig) + inspect.getsource(DataConfig)
    written = set(re.findall(r'^    """(.*?)"""', source, re.MULTILINE))
    meanings = field_meanings(LlavaDataConfig)
    assert set(meanings) == set(LlavaDataConfig.__dataclass_fields__)
    assert set(meanings.values()) <= written
    assert meanings["num_workers"].startswith("Data-loading processes per rank")
