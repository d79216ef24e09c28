"""Directories whose embedding and tokenizer are not of one size are used without being told anything but their path."""

import pytest
import torch
from exported_tokenizers import write_tokenizer
from model_cases import batch, changed, hf_llama, hf_llava, llava_recipe, pretrained, text_recipe
from transformers import AddedToken, AutoTokenizer, LlavaForConditionalGeneration

from neva_model.checkpoints.huggingface.pretrained import load_pretrained
from neva_model.inference.opening import open_model
from neva_model.model import build_model
from neva_model.tokenizers import load_tokenizer

SIZE = "model.language.vocab_size"


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A tokenizer and its number of tokens."""
    folder = tmp_path_factory.mktemp("words") / "tokenizer"
    write_tokenizer("sentencepiece", folder)
    return folder, load_tokenizer(str(folder), vocab_size=None).vocab_size


def give(tokens, source, directory):
    """Write a tokenizer into a directory, with more tokens; the last one fills rows."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in tokens], special_tokens=True)
    tokenizer.add_special_tokens({"pad_token": tokens[-1]})
    tokenizer.save_pretrained(directory)


@torch.no_grad()
def test_a_token_without_a_row_gets_one(words, tmp_path):
    source, size = words
    llama = hf_llama(text_recipe({SIZE: size}))
    llama.save_pretrained(tmp_path)
    give(["[PAD]"], source, tmp_path)
    model = open_model(tmp_path).model.float()
    assert open_model(tmp_path).tokenizer.pad_id == size
    for ours, theirs in (
        (model.language.embedding.word_embeddings.weight, llama.model.embed_tokens.weight),
        (model.language.output_layer.weight, llama.lm_head.weight),
    ):
        assert torch.equal(ours[:size], theirs)
        torch.testing.assert_close(ours[size], theirs.mean(0))


@torch.no_grad()
@pytest.mark.parametrize("beyond", [0, 2, 24])
def test_rows_that_are_no_words_may_be_left_out(beyond, words, tmp_path):
    """llava-1.5-7b-hf in small: a row for images, one that fills up, and rows that fill up the matrix."""
    source, size = words
    recipe = llava_recipe({SIZE: size + 23})
    oracle = hf_llava(recipe)
    oracle.config.image_token_index = oracle.config.image_token_id = size
    oracle.save_pretrained(tmp_path)
    give(["<image>", "<pad>"], source, tmp_path)
    tokenizer = load_tokenizer(str(tmp_path), vocab_size=None)
    assert tokenizer.vocab_size == size and tokenizer.pad_id < size
    recipe = pretrained(changed(recipe, {SIZE: size + beyond}), tmp_path)
    model = build_model(recipe, pre_process=True, post_process=True).eval()
    told = load_pretrained(model, recipe, tokenizer)
    assert "new tokens" not in told[0]  # each has a row in the directory, and that is used
    case = batch([1, 2], 20)
    reloaded = LlavaForConditionalGeneration.from_pretrained(tmp_path)
    tokens = case["tokens"]
    expected = reloaded(input_ids=tokens.where(tokens != -200, size), pixel_values=case["images"]).logits
    logits = model(tokens, case["position_ids"], case["images"])
    used = min(size + beyond, size + 24)
    assert (logits[..., :used] - expected[..., :used]).abs().max() <= 1e-4


@torch.no_grad()
def test_tokens_around_images_start_as_the_mean_though_there_are_rows(words, tmp_path):
    source, size = words
    llama = hf_llama(text_recipe({SIZE: size + 20}))
    llama.save_pretrained(tmp_path)
    give(["[PAD]"], source, tmp_path)
    tokenizer = load_tokenizer(str(tmp_path), vocab_size=None, use_im_start_end=True)
    changes = {SIZE: size + 20, "model.use_im_start_end": True, "model.language.from_pretrained": str(tmp_path)}
    recipe = llava_recipe(changes)
    model = build_model(recipe, pre_process=True, post_process=True)
    (line,) = load_pretrained(model, recipe, tokenizer)
    assert "2 new tokens" in line
    ours, theirs = model.language.embedding.word_embeddings.weight, llama.model.embed_tokens.weight
    new = slice(size + 1, size + 3)
    torch.testing.assert_close(ours[new], theirs[: size + 1].mean(0).expand(2, -1))
    assert torch.equal(ours[: size + 1], theirs[: size + 1]) and torch.equal(
        ours[size + 3 : size + 20], theirs[size + 3 :]
    )
