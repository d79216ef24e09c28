"""Tokenizers trained on the spot, and a recipe to load data with."""

import io
import json

import pytest
import sentencepiece
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from neva_model.tokenizers import Tokenizer, load_tokenizer
from neva_recipes.config import (
    CheckpointConfig,
    LanguageConfig,
    LlavaDataConfig,
    LoggingConfig,
    ModelConfig,
    OptimConfig,
    ParallelConfig,
    PrecisionConfig,
    ProjectorConfig,
    Recipe,
    TrainerConfig,
    VisionConfig,
)

CORPUS = [
    "A chat between a curious user and an artificial intelligence assistant.",
    "The assistant gives helpful, detailed, and polite answers to the user's questions. USER: ASSISTANT:",
    "You are a helpful language and vision assistant. What digit is shown in the image? It is a seven.",
    "quality:4,toxicity:0,humor:0,creativity:0,helpfulness:4,correctness:4,coherence:4,complexity:4,verbosity:4",
    "</p> <b>a</b> </p>",
] * 20

SPECIALS = [
    *("<s>", "</s>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<|im_start|>", "<|im_end|>", *(f"<extra_id_{number}>" for number in range(8))),
    *("<bos>", "<start_of_turn>", "<end_of_turn>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
]


def train_sentencepiece(**options) -> bytes:
    settings = {
        "vocab_size": 560,
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "minloglevel": 2,
    }
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=model, **{**settings, **options}
    )
    return model.getvalue()


@pytest.fixture(scope="session")
def sentencepiece_model(tmp_path_factory):
    """A bare model file with Llama's settings and NeMo's user-defined pieces."""
    path = tmp_path_factory.mktemp("sentencepiece") / "caption tokens.model"
    path.write_bytes(train_sentencepiece(user_defined_symbols=[f"<extra_id_{number}>" for number in range(8)]))
    return path


@pytest.fixture(scope="session")
def sentencepiece_tokenizer(sentencepiece_model) -> Tokenizer:
    return load_tokenizer(str(sentencepiece_model), vocab_size=None)


@pytest.fixture(scope="session")
def llama_directories(tmp_path_factory):
    """Two Hugging Face directories of one vocabulary without NeMo's pieces: `legacy` false and true."""
    model, folders = train_sentencepiece(), {}
    for legacy in (False, True):
        folder = tmp_path_factory.mktemp(f"llama-{legacy}")
        (folder / "tokenizer.model").write_bytes(model)
        settings = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy, "add_bos_token": True}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        folders[legacy] = folder
    return folders


@pytest.fixture(scope="session")
def byte_level_directory(tmp_path_factory):
    """A byte-level BPE tokenizer as Llama 3's, with the special tokens of every template."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    hf = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    hf.add_tokens(SPECIALS, special_tokens=True)
    hf.add_tokens(["<image>"])
    folder = tmp_path_factory.mktemp("byte-level")
    hf.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def byte_level_tokenizer(byte_level_directory) -> Tokenizer:
    return load_tokenizer(str(byte_level_directory), vocab_size=None)


@pytest.fixture
def make_recipe():
    """Return a function that makes a small recipe; its keyword arguments are fields of the data or the trainer."""

    def make(data_class=LlavaDataConfig, *, trainer=None, vision=None, language_from=None, **data) -> Recipe:
        vision = vision or VisionConfig(
            num_layers=1, hidden_size=8, ffn_hidden_size=8, num_attention_heads=1, image_size=28, patch_size=14
        )
        language = LanguageConfig(
            num_layers=1,
            hidden_size=8,
            ffn_hidden_size=8,
            num_attention_heads=1,
            num_query_groups=1,
            vocab_size=600,
            max_position_embeddings=4096,
            from_pretrained=language_from,
        )
        with_images = data_class is LlavaDataConfig
        model = ModelConfig(
            language=language,
            vision=vision if with_images else None,
            projector=ProjectorConfig() if with_images else None,
        )
        return Recipe(
            name="test",
            model=model,
            data=data_class(**{"num_workers": 0, **data}),
            parallel=ParallelConfig(),
            precision=PrecisionConfig(),
            optim=OptimConfig(),
            trainer=TrainerConfig(**(trainer or {"max_steps": 1})),
            checkpoint=CheckpointConfig(),
            logging=LoggingConfig(),
        )

    return make
