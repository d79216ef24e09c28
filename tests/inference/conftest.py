import json

import pytest
import torch
from PIL import Image

from neva_model.startup import prepare_process
from neva_model.tokenizers import load_tokenizer
from tests.byte_level_tokenizers import train_byte_level
from tests.inference import tiny_models
from tests.sentencepiece_models import train_sentencepiece

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
    train_sentencepiece(directory / "tokenizer.model", TEXT * 5, 330)
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (directory / "tokenizer_config.json").write_text(json.dumps({**config, "add_bos_token": True, "legacy": False}))
    return directory


@pytest.fixture(scope="session")
def byte_level_tokenizer_directory(tmp_path_factory):
    """A byte-level BPE tokenizer of Llama-3's and GPT-2's kind: any bytes can follow one another."""
    directory = tmp_path_factory.mktemp("bytes")
    specials = ["<|begin|>", "<|end|>"]
    train_byte_level(directory, TEXT, 320, specials, bos_token="<|begin|>", eos_token="<|end|>")
    return directory


@pytest.fixture(scope="session")
def tokenizers_by_kind(llama_tokenizer_directory, byte_level_tokenizer_directory):
    directories = {"sentencepiece": llama_tokenizer_directory, "byte level": byte_level_tokenizer_directory}
    return {kind: load_tokenizer(str(directory), vocab_size=None) for kind, directory in directories.items()}


@pytest.fixture(scope="session", autouse=True)
def one_process():
    """Process groups of a world of one, for every test here that builds a model."""
    # Several threads would wait for each other, spinning, wherever the machine has other things to do.
    torch.set_num_threads(1)
    prepare_process()
    from neva_model.checkpoints.load import initialize_single_process

    initialize_single_process()


@pytest.fixture(scope="session")
def llava_oracle(tokenizers_by_kind):
    return tiny_models.make_llava(tokenizers_by_kind["sentencepiece"].vocab_size)


@pytest.fixture(scope="session")
def llava_directory(llava_oracle, tokenizers_by_kind, tmp_path_factory):
    directory = tmp_path_factory.mktemp("a LLaVA with ümlaut")
    return tiny_models.save_directory(llava_oracle, tokenizers_by_kind["sentencepiece"], directory, with_images=True)


@pytest.fixture(scope="session")
def llama_oracle(tokenizers_by_kind):
    return tiny_models.make_llama(tokenizers_by_kind["sentencepiece"].vocab_size)


@pytest.fixture(scope="session")
def llama_directory(llama_oracle, tokenizers_by_kind, tmp_path_factory):
    directory = tmp_path_factory.mktemp("llama")
    return tiny_models.save_directory(llama_oracle, tokenizers_by_kind["sentencepiece"], directory, with_images=False)


@pytest.fixture(scope="session")
def llava(llava_directory):
    """The LLaVA as this project opens it."""
    from neva_model.inference.opening import open_model

    return open_model(llava_directory)


@pytest.fixture(scope="session")
def llama(llama_directory):
    from neva_model.inference.opening import open_model

    return open_model(llama_directory)


@pytest.fixture(scope="session")
def llava_run(llava, tmp_path_factory):
    """A run whose newest checkpoint holds the LLaVA."""
    return tiny_models.save_run(llava.model, llava.recipe, tmp_path_factory.mktemp("runs") / "llava-run")


@pytest.fixture(scope="session")
def llama_run(llama, tmp_path_factory):
    """A run on plain text."""
    return tiny_models.save_run(llama.model, llama.recipe, tmp_path_factory.mktemp("runs") / "gpt-run")


@pytest.fixture(scope="session")
def llama_of_four_layers(tokenizers_by_kind):
    """One that can be divided over two stages of a pipeline."""
    return tiny_models.make_llama(tokenizers_by_kind["sentencepiece"].vocab_size, num_hidden_layers=4)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Image files that differ, one of them not square."""
    folder = tmp_path_factory.mktemp("pictures of two kinds")
    for number in range(5):
        size = (40, 40) if number else (64, 30)
        image = Image.new("RGB", size, (250 if number % 2 else 5, 60 * number, 200))
        image.paste((255, 255, 255), (4 * number, 4 * number, 20, 20))
        image.save(folder / f"picture {number}.png")
    return folder
