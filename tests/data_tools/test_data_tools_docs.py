"""The commands of docs/data_tools.md print what stands there, and its table has every kind of findings."""

import json
import re

from PIL import Image

from neva_recipes.cli.main import main
from neva_recipes.data_tools.kinds import KINDS
from tests.data_tools.samples import sample
from tests.test_architecture import ROOT
from tests.tokenizers.texts import made_lines, train_model

PAGE = (ROOT / "docs" / "data_tools.md").read_text(encoding="utf-8")


def test_the_check_prints_what_the_page_says(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = re.search(r"^    \$ nemo-run data check .*\n((?:    .*\n)+)", PAGE, re.MULTILINE)[1]
    (tmp_path / "images").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "images" / "1.jpg")
    records = [
        sample("a", "<image>\nWhat?", image="1.jpg"),
        sample("b", "<image>\nWho?", image="2.jpg"),
        {"id": "c", "conversations": [{"from": "human", "value": "A?"}, {"from": "human", "value": "B?"}]},
        sample("a", "Where?"),
    ]
    (tmp_path / "chats.json").write_text("[\n" + ",\n".join(map(json.dumps, records)) + "\n]\n")
    assert main(["data", "check", "chats.json", "--image-folder", "images"]) == 1
    assert capsys.readouterr().out.startswith(re.sub("^    ", "", shown, flags=re.MULTILINE))


def test_the_table_has_every_kind():
    rows = re.findall(r"^\| `([a-z-]+)` \| (error|warning) \|", PAGE, re.MULTILINE)
    assert rows == [(kind, KINDS[kind].severity) for kind in KINDS]


def test_the_preview_prints_what_the_page_says(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, shown = re.search(
        r"^    \$ nemo-run (data preview .*)\n((?:    .*\n|\n(?=    ))+)", PAGE, re.MULTILINE
    ).groups()
    train_model(tmp_path / "tokenizer.model", made_lines("latin", 605))
    records = [sample("a", "<image>\nWhat?", "This is a list.", image="1.jpg"), sample("b")]
    (tmp_path / "chats.json").write_text(json.dumps(records))
    assert main(words.split()) == 0
    begin, end = re.sub("^    ", "", shown, flags=re.MULTILINE).split(" ...\n")
    out = re.sub(r" \n", "\n", capsys.readouterr().out)
    assert out.startswith(begin) and out.endswith(end)
