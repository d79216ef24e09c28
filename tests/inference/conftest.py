import json

import pytest
import sentencepiece
import tokenizers
from transformers import PreTrainedTokenizerFast

from neva_model.tokenizers import load_tokenizer

TEXT = [
    "A chat between a curious user and an artificial intelligence assistant.",
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    "USER: What is in the picture? ASSISTANT: a red square on a white ground.",
    "Is the digit odd or even? odd. Which digit is this? seven, zero, five.",
]


@pytest.fixture(scope="session")
def llama_tokenizer_directory(tmp_path_factory):
    """A SentencePiece tokenizer of Llama's kind: dummy prefix, characters outside its vocabulary as bytes."""
    directory = tmp_path_factory.mktemp("llama tokenizer")
    with (directory / "tokenizer.model").open("wb") as model:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXT * 5),
            model_writer=model,
            vocab_size=330,
            model_type="bpe",
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            hard_vocab_limit=False,
            minloglevel=2,
        )
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (directory / "tokenizer_config.json").write_text(json.dumps({**config, "add_bos_token": True, "legacy": False}))
    return directory


@pytest.fixture(scope="session")
def byte_level_tokenizer_directory(tmp_path_factory):
    """A byte-level BPE tokenizer of Llama-3's and GPT-2's kind: any bytes can follow one another."""
    directory = tmp_path_factory.mktemp("bytes")
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|begin|>", "<|end|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXT, trainer)
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|begin|>", eos_token="<|end|>").save_pretrained(
        directory
    )
    return directory


@pytest.fixture(scope="session")
def tokenizers_by_kind(llama_tokenizer_directory, byte_level_tokenizer_directory):
    directories = {"sentencepiece": llama_tokenizer_directory, "byte level": byte_level_tokenizer_directory}
    return {kind: load_tokenizer(str(directory), vocab_size=None) for kind, directory in directories.items()}
