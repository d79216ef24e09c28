"""SentencePiece models of Llama's kind: BPE with bytes, and no change of the text."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sentencepiece


def train_sentencepiece(path: Path, lines: Iterable[str], vocab_size: int, **options: Any) -> None:
    """Train a model on some lines and write it to a file."""
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=file,
            vocab_size=vocab_size,
            model_type="bpe",
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            hard_vocab_limit=False,
            minloglevel=2,
            **options,
        )


def train_words(path: Path, words: list[str]) -> None:
    """Train a model of 400 tokens that knows some words in any order."""
    lines = [" ".join(words[number:] + words[:number]) for number in range(len(words))] * 20
    train_sentencepiece(path, lines, 400, character_coverage=1.0)
