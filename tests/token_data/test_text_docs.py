"""The command of docs/text_data.md prints what stands there."""

import json
import re
import shlex

from neva_recipes.cli.main import main
from tests.test_architecture import ROOT
from tests.tokenizers.texts import made_lines, train_model


def test_the_command_prints_what_the_page_says(tmp_path, capsys, monkeypatch):
    page = (ROOT / "docs" / "text_data.md").read_text(encoding="utf-8")
    command, shown = re.search(r"^    \$ nemo-run (.*)\n((?:    .*\n)+)", page, re.MULTILINE).groups()
    monkeypatch.chdir(tmp_path)
    lines = made_lines("latin", 605)
    train_model(tmp_path / "tokenizer.model", lines)
    (tmp_path / "corpus").mkdir()
    records = "".join(json.dumps({"text": line}) + "\n" for line in lines[:500])
    (tmp_path / "corpus" / "a.jsonl").write_text(records)
    (tmp_path / "more.txt").write_text("\n".join(lines[500:]))
    assert main(shlex.split(command)) == 0
    assert capsys.readouterr().out == re.sub("^    ", "", shown, flags=re.MULTILINE)


def test_the_commands_for_training_are_planned(tmp_path, capsys, monkeypatch):
    page = (ROOT / "docs" / "text_data.md").read_text(encoding="utf-8").replace("\\\n", "")
    section = page[page.index("## Training on them") :]
    commands = re.findall(r"^    \$ nemo-run (.*)$", section, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    lines = made_lines("latin", 400)
    train_model(tmp_path / "tokenizer.model", lines)
    (tmp_path / "old.txt").write_text("\n".join(lines[:200]))
    (tmp_path / "new.txt").write_text("\n".join(lines[200:]))
    assert len(commands) == 3
    for command in commands:
        assert main(shlex.split(command)) == 0
    assert "new/train.idx is 0.7 of the samples" in " ".join(capsys.readouterr().out.split())
