"""Byte-level BPE tokenizers of GPT-2's kind, in a tokenizer.json."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast


def train_byte_level(
    folder: Path,
    lines: Iterable[str],
    vocab_size: int,
    specials: Sequence[str] = (),
    behind: Sequence[str] = (),
    **named: str,
) -> tokenizers.Tokenizer:
    """Train a tokenizer, write it to a folder and return it.

    Args:
        folder: The folder.
        lines: The text.
        vocab_size: Tokens of the vocabulary.
        specials: Special tokens at its begin.
        behind: Special tokens behind it.
        **named: What some tokens are for, such as `eos_token`.
    """
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(lines, trainer)
    backend.add_special_tokens(list(behind))
    PreTrainedTokenizerFast(tokenizer_object=backend, **named).save_pretrained(folder)
    return backend
