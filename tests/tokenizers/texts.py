"""Texts of several languages, and tokenizers that are trained on them.

English is Python's own: docstrings of its standard library (PSF licence). Words of other scripts are made of random
letters, with the frequencies of Zipf's law.
"""

import argparse
import inspect
import json
import logging
import random
import subprocess
import tarfile
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from tests.sentencepiece_models import train_sentencepiece

ALPHABETS = {
    "greek": "αβγδεζηθικλμνξοπρστυφχψω",
    "cyrillic": "абвгдежзиклмнопрстуфхцчшыэюя",
    "devanagari": "अआइईउऊकखगघचछजझटठडढतथदधनपफबभमयरलवशषसह",
    "latin": "abcdefghiklmnopqrstuvwxyz",
}


def english_lines():
    """Return lines of Python's docstrings, without their indents, before which transformers adds no space."""
    found = []
    for module in (argparse, inspect, json, logging, random, subprocess, tarfile):
        for _, member in sorted(
            inspect.getmembers(module, lambda one: inspect.isfunction(one) or inspect.isclass(one))
        ):
            found += (inspect.getdoc(member) or "").splitlines()
    return [line for line in dict.fromkeys(line.strip() for line in found) if line]


def made_lines(script, count, seed=0, words=300):
    """Return lines of random words of a script; no letter stands beside itself.

    The order of merges of equal letters is the only one in which transformers and SentencePiece differ.
    """
    chance = random.Random(f"{script} {seed}")
    vocabulary = [_word(chance, ALPHABETS[script]) for _ in range(words)]
    weights = [1 / rank for rank in range(1, words + 1)]
    return [" ".join(chance.choices(vocabulary, weights, k=chance.randint(3, 9))) for _ in range(count)]


def _word(chance, letters):
    word = ""
    for _ in range(chance.randint(2, 9)):
        word += chance.choice([letter for letter in letters if letter != word[-1:]])
    return word


def train_model(path, lines, vocab_size=700, **options):
    """Train a SentencePiece model of Llama's kind on lines."""
    train_sentencepiece(path, lines, vocab_size, character_coverage=1.0, split_digits=True, **options)
    return path


def llama_directory(folder, model, **configuration):
    """Write a directory that transformers loads as a Llama tokenizer."""
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(Path(model).read_bytes())
    settings = {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": False, **configuration}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen 2 cuts text before BPE (transformers, tokenization_qwen2.py)."""


def byte_level_directory(folder, lines, vocab_size=600, specials=(), split=QWEN_SPLIT, **configuration):
    """Train a byte-level tokenizer on lines, with special tokens behind its vocabulary, as Qwen's."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.add_special_tokens(list(specials))
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **configuration}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
