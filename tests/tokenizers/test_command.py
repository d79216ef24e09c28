"""The command that the tools are actions of, and the names that tokenizers have for it."""

import re
import subprocess
import sys

import huggingface_hub.constants
import pytest

from neva_recipes.cli.arguments import StrictParser
from neva_recipes.cli.completion import parser_of
from neva_recipes.cli.main import main
from neva_recipes.tokenizers import compare
from tests.tokenizers.texts import llama_directory

ACTIONS = ["add-tokens", "merge", "train", "compare", "check"]


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_has_help(action, capsys):
    assert main(["help", "tokenizer", action]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: nemo-run tokenizer {action}")
    assert max(map(len, shown.splitlines())) <= 80
    assert isinstance(parser_of("tokenizer", action), StrictParser)


def test_the_help_lists_every_action(capsys):
    assert main(["tokenizer", "--help"]) == 0
    assert re.findall(r"^  (\S+)  +\w", capsys.readouterr().out, re.MULTILINE)[: len(ACTIONS)] == ACTIONS


@pytest.mark.parametrize(("words", "problem"), [([], "required: ACTION"), (["merg"], "invalid choice: 'merg'")])
def test_no_action(words, problem, capsys):
    assert main(["tokenizer", *words]) == 2
    assert problem in capsys.readouterr().err


def test_nothing_heavy_is_imported():
    code = (
        "import sys, neva_recipes.tokenizers\n"
        "print({'torch', 'transformers', 'tokenizers', 'sentencepiece', 'numpy'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_a_hub_name_is_a_tokenizer(english_model, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "text.txt").write_text("the text\n")
    monkeypatch.chdir(tmp_path)
    assert main(["tokenizer", "compare", "owner/name", "--text", "text.txt"]) == 2
    repository = tmp_path / "cache" / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    llama_directory(repository / "snapshots" / ("0" * 40), english_model)
    assert compare(["owner/name"], [tmp_path / "text.txt"]).sizes == (700,)
