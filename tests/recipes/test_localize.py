"""What gpt.localize cannot do is told before its first stage, not after hours of training."""

import json

import pytest
from transformers import LlamaConfig

from neva_recipes.cli.main import main
from tests.sentencepiece_models import train_words


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaConfig(**sizes, vocab_size=420).save_pretrained(tmp_path / "base")
    train_words(tmp_path / "tokenizer.model", ["what is", "the digit ?"])
    for name in ("new.txt", "old.txt", "prompts.txt"):
        (tmp_path / name).write_text("the digit\n")
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "wrong.jsonl").write_text(json.dumps({"text": "odd"}) + "\n")
    return tmp_path


REFUSED = {
    "no tokenizer": ([], "error: model=base: no tokenizer there: expected tokenizer.model or tokenizer.json; set "),
    "a tokenizer that is not there": (["tokenizer=nope"], "error: tokenizer=nope: no tokenizer there: expected "),
    "prompts without a tokenizer of the model's own": (
        ["tokenizer=tokenizer.model", "prompts=prompts.txt"],
        "error: model=base: no tokenizer there: expected tokenizer.model or tokenizer.json; put it there, ",
    ),
    "fewer tokens than bytes": (
        ["tokenizer=tokenizer.model", "vocab_size=258"],
        "error: words: a vocabulary of 258 is too small: the bytes and <unk>, <s>, </s> alone are 259\n",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("dry_run", [["--dry-run"], []])
def test_what_no_stage_could_do(case, dry_run, world, capsys):
    words, message = REFUSED[case]
    assert main(["gpt.localize", "model=base", "new_text=new.txt", "old_text=old.txt", *words, *dry_run]) == 2
    assert message in capsys.readouterr().err
    assert not (world / "runs").exists()


@pytest.mark.parametrize(
    ("prompts", "message"),
    [("blank.txt", "blank.txt: holds no prompt"), ("wrong.jsonl", 'wrong.jsonl: record 1 has no "prompt"')],
)
def test_prompts_that_cannot_be_read(prompts, message, world, capsys):
    (world / "base" / "tokenizer.model").write_bytes((world / "tokenizer.model").read_bytes())
    words = ["model=base", "new_text=new.txt", "old_text=old.txt", f"prompts={prompts}"]
    assert main(["gpt.localize", *words]) == 2
    error = capsys.readouterr().err
    assert "error: before: " in error and message in error
    assert not (world / "runs").exists()
