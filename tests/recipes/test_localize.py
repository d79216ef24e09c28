"""What gpt.localize cannot do is told before its first stage, not after hours of training."""

import json
import re

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
        (tmp_path / name).write_text("".join(f"the digit {number}\n" for number in range(300)))
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


def test_a_text_that_is_too_small_to_divide(world, capsys):
    """Twelve lines of which none falls into two in a hundred, and one that no weights divide."""
    (world / "old.txt").write_text("the digit\n")
    lines = [f"the digit {number}" for number in range(12)]
    (world / "new.txt").write_text("".join(f"{line}\n" for line in lines))
    words = ["model=base", "tokenizer=tokenizer.model", "new_text=new.txt", "old_text=old.txt"]
    assert main(["gpt.localize", *words]) == 2
    assert "error: new: split=98,2: none of 12 documents falls" in capsys.readouterr().err
    assert main(["gpt.localize", *words, "--dry-run"]) == 2
    error = capsys.readouterr().err
    told = "split=98,2: none of {} falls into validation, which train takes: {}"
    assert f"old: {told.format('1 document', 'give it more text')}" in error
    advice = re.search(rf"new: {told.format('12 documents', 'set (new.split=[0-9,]+)')}", error)
    assert advice is not None and not (world / "runs").exists()
    # The advice helps: the command that the stage is makes both parts with these weights, and not with the others.
    train_words(world / "words.model", ["the digit 0 1 2 3 4", "5 6 7 8 9"])
    for number, (split, parts) in enumerate([("98,2", 1), (advice[1].partition("=")[2], 2)]):
        out = world / f"out{number}"
        assert main(["data", "text", "new.txt", str(out), "--tokenizer=words.model", f"--split={split}"]) == 0
        assert len([*out.glob("*.idx")]) == parts
    assert main(["gpt.localize", *words, advice[1], "old.split=1", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert "new: " not in error
    assert "old: split=1: gives no weight to validation, which train takes: expected such as 98,1,1" in error


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
