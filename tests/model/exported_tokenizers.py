"""Tokenizers of every kind that a model may have, each with the special tokens of every template."""

import json

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer

from neva_recipes.prompts.templates import TEMPLATES
from tests.sentencepiece_models import train_words

SPECIALS = list(dict.fromkeys(token for template in TEMPLATES.values() for token in template.special_tokens))
GAUGE = tokenizers.AddedToken("<gauge>", normalized=False)
"""A token of a user's own, which is no special token."""
WORDS = tuple(
    "what is the digit it a one two odd even number and larger than five which colour Q1 A1 ASSISTANT USER".split()  # noqa: SIM905
)

KINDS = (
    "sentencepiece",
    "sentencepiece without begin",
    "sentencepiece of old",
    "llama 3",
    "qwen",
    "nothing named",
)


def write_tokenizer(kind, folder):
    """Write a tokenizer of a kind into a folder."""
    folder.mkdir(parents=True)
    if kind.startswith("sentencepiece"):
        _write_sentencepiece(folder, begin="without" not in kind, legacy="old" in kind)
        return
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>", *SPECIALS])
    backend.add_tokens([GAUGE])
    named = {}
    if kind == "llama 3":
        begin = "<|begin_of_text|>"
        ids = [(begin, backend.token_to_id(begin))]
        backend.post_processor = processors.TemplateProcessing(single=f"{begin} $A", special_tokens=ids)
        named = {"bos_token": begin, "eos_token": "<|eot_id|>"}
    elif kind == "qwen":
        named = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    backend.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **named}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _write_sentencepiece(folder, *, begin, legacy):
    train_words(folder / "tokenizer.model", WORDS)
    settings = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": begin, "legacy": legacy}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(SPECIALS, special_tokens=True)
    tokenizer.add_tokens([GAUGE])
    tokenizer.save_pretrained(folder)
    saved = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(saved | settings))
    (folder / "tokenizer.model").unlink(missing_ok=True)
