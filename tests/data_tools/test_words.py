"""The actions of `nemo-run data` are in its help, and the shell completes them."""

import re

import pytest

from neva_recipes.cli.main import main

ACTIONS = ("text", "check", "preview", "layout")


def said(capsys, *words):
    assert main(list(words)) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    return text


def test_the_help_names_every_action(capsys):
    for words in (("data", "--help"), ("help", "data")):
        text = said(capsys, *words)
        assert [name for name in ACTIONS if re.search(rf"^  {name} +\w", text, re.MULTILINE)] == list(ACTIONS)
    assert re.search(r"^  data +\w", said(capsys, "help"), re.MULTILINE)


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_has_help(action, capsys):
    text = said(capsys, "data", action, "--help")
    assert text.startswith(f"usage: nemo-run data {action}") and "--help" in text


def test_an_action_that_is_none(capsys):
    assert main(["data", "chekc"]) == 2
    assert "check" in capsys.readouterr().err
