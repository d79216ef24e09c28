"""Every command that docs/nemo.md names beside one of NeMo's, in the order of the table."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.end_to_end.world import nemo_run
from tests.sentencepiece_models import train_sentencepiece

TEXT = (Path(__file__).parents[2] / "docs" / "nemo.md").read_text(encoding="utf-8")
SECTION = TEXT.partition("## Preparation and localization")[2].partition("\n## ")[0]
COMMANDS = [
    command
    for row in SECTION.splitlines()
    if row.startswith("| ")
    for command in re.findall(r"`(nemo-run [^`]+ [^`]+)`", row.split(" | ")[-1])
]
"""What the last column says, but for commands without arguments, which are references."""

OLD = ["a red square on a white ground", "which digit is this? seven, zero, five", "the answer is a leaf"]
NEW = ["ein rotes Viereck auf grünem Grund", "welche Ziffer ist das? sieben, null, fünf", "die Antwort: ein Blatt"]
SMALL = ["data.sequence_length=32", "data.global_batch_size=4", "data.micro_batch_size=4", "trainer.max_steps=2"]
SHORTER = {
    "neva.pretrain": ["--dry-run"],
    "neva.finetune": ["--dry-run"],
    "gpt.continue_pretrain": ["size=tiny", *SMALL],
    "gpt.localize": [f"train.{word}" for word in SMALL],
    "generate": ["--max-new-tokens=4"],
}
"""What makes each a matter of seconds; a recipe without a tiny size is planned, and trained by other tests."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The chat model and the texts that the table begins with."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape = LlamaConfig(**sizes, vocab_size=330, max_position_embeddings=4096)
    LlamaForCausalLM(shape).save_pretrained(tmp_path / "llama")
    train_sentencepiece(tmp_path / "llama" / "tokenizer.model", OLD * 20, 330)
    names = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (tmp_path / "llama" / "tokenizer_config.json").write_text(json.dumps({**names, "legacy": False}))
    for name, lines in (("old.txt", OLD), ("new.txt", NEW)):
        several = [f"{line}, {number}" for number in range(60) for line in lines]
        (tmp_path / name).write_text("\n".join(several), encoding="utf-8")
    return tmp_path


@pytest.mark.slow
@pytest.mark.multiprocess
def test_each_command_does_its_part(folder: Path) -> None:
    assert len(COMMANDS) >= 15
    printed = {}
    for command in COMMANDS:
        _, *words = shlex.split(command)
        printed[command] = nemo_run(*words, *SHORTER.get(words[0], ()), cwd=folder).stdout
    rows = json.loads((folder / "llama-neva" / "config.json").read_text())["vocab_size"]
    assert rows == 330 + 8
    assert (folder / "localized" / "config.json").is_file()
    (compared,) = (text for command, text in printed.items() if "compare" in command)
    costs = re.findall(r"^(?:all +[\d,]+)? +[12] +([\d,]+)", compared, re.MULTILINE)
    tokens = [int(figure.replace(",", "")) for figure in costs]
    assert tokens[1] < tokens[0]
