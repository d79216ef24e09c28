"""Trains tokenizers of the kinds that Llama-like models have: `nemo-run tokenizer train`."""

import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from neva_recipes.config import DataError
from neva_recipes.plan.tokenizers.kinds import END, Kind, require_vocabulary
from neva_recipes.storage.exports import require_new
from neva_recipes.tokenizers._places import CONFIG_FILE, JSON_FILE
from neva_recipes.tokenizers._texts import TEXT_KEYS, text_lines
from neva_recipes.tokenizers._writing import write_directory, write_file

__all__ = ["Kind", "train"]

_SETTINGS = {
    "model_type": "bpe",
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "add_dummy_prefix": True,
    "remove_extra_whitespaces": False,
    "split_digits": True,
    "allow_whitespace_only_pieces": True,
    "character_coverage": 0.99995,
}
"""What the model file of Llama 2 says of its own training."""

_LONGEST = 4000
"""Characters of a part of a line: SentencePiece skips lines that are too long, and numbers characters with 16 bits; the
time of byte-level BPE grows with the square of the longest word."""

_MOST_BYTES = 4
"""Bytes of a character in UTF-8."""

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen 2 cuts text before BPE (transformers, tokenization_qwen2.py); Llama 3 differs in groups of digits."""

_MOST = 2**20
"""Four times the largest vocabulary of a published model (Gemma 3: 262,144); the libraries reserve memory for each."""


def train(
    files: Sequence[Path],
    target: Path,
    *,
    vocab_size: int,
    kind: Kind = "sentencepiece",
    json_keys: Sequence[str] = TEXT_KEYS,
) -> int:
    """Train a tokenizer; the same text gives the same tokenizer.

    Args:
        files: Text, or JSONL; both may be compressed with gzip.
        target: The model file to write, or with `byte-level` the directory; must not exist yet.
        vocab_size: Number of its tokens, bytes and special tokens included; at most 1,048,576.
        kind: SentencePiece BPE with bytes, as Llama 2's, or byte-level BPE with `<|endoftext|>`, as Qwen's.
        json_keys: The fields of a record of JSONL that hold text.

    Returns:
        Number of lines that it was trained on.

    Raises:
        CheckpointError: The target exists or cannot be written.
        DataError: The text cannot be used, or does not give that many tokens.
    """
    require_new(target, "file" if kind == "sentencepiece" else "directory")
    require_vocabulary(vocab_size, kind)
    if vocab_size > _MOST:
        raise DataError(f"a vocabulary of {vocab_size:,} is too large: expected at most {_MOST:,}")
    lines = [line.text for line in text_lines(files, json_keys)]
    if kind == "sentencepiece":
        write_file(target, _sentencepiece(lines, vocab_size))
    else:
        write_directory(target, _byte_level(lines, vocab_size), {})
    return len(lines)


def _sentencepiece(lines: Sequence[str], vocab_size: int) -> bytes:
    import sentencepiece

    content = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(part for line in lines for part in _parts(line, keeps_space=False)),
            model_writer=content,
            vocab_size=vocab_size,
            max_sentence_length=_LONGEST * _MOST_BYTES,
            minloglevel=2,
            **_SETTINGS,
        )
    except RuntimeError as error:
        raise _refusal(vocab_size, str(error)) from None
    return content.getvalue()


def _parts(line: str, *, keeps_space: bool) -> Iterator[str]:
    """Yield a line in parts that are not too long, cut before the last space if there is one.

    Args:
        line: The line.
        keeps_space: Whether a part begins with that space; SentencePiece puts one before each part itself.
    """
    while len(line) > _LONGEST:
        end = line.rfind(" ", 1, _LONGEST)
        end = end if end > 0 else _LONGEST
        yield line[:end]
        line = line[end:] if keeps_space else line[end:].removeprefix(" ")
    yield line


def _refusal(vocab_size: int, reason: str) -> DataError:
    """Return the error for a number of tokens that SentencePiece refuses.

    Its messages are "Vocabulary size is too high (9). Please set it to a value <= 5." and "Vocabulary size is smaller
    than required_chars. 5 vs 9. ...".
    """
    if found := re.search(r"too high.*<= (\d+)", reason):
        return _too_little(vocab_size, int(found[1]))
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", reason):
        return DataError(f"a vocabulary of {vocab_size:,} is too small: bytes and characters alone are {found[1]}")
    return DataError(f"SentencePiece cannot be trained: {' '.join(reason.split())[:200]}")


def _too_little(vocab_size: int, most: int) -> DataError:
    return DataError(
        f"the text gives at most {most:,} tokens, not {vocab_size:,}: take more text, or a smaller vocabulary"
    )


def _byte_level(lines: Sequence[str], vocab_size: int) -> dict[str, bytes]:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((part for line in lines for part in _parts(line, keeps_space=True)), trainer)
    tokenizer.add_special_tokens([END])
    if (most := tokenizer.get_vocab_size()) < vocab_size:
        raise _too_little(vocab_size, most)
    configuration = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": END,
        "clean_up_tokenization_spaces": False,
    }
    return {
        JSON_FILE: (tokenizer.to_str(pretty=True) + "\n").encode(),
        CONFIG_FILE: (json.dumps(configuration, indent=2) + "\n").encode(),
    }
