"""Prompts of unequal length in one batch get the answers that each gets alone, in the ways people make batches."""

import json

import pytest
import torch
from exported_tokenizers import write_tokenizer
from model_cases import llava_recipe
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration, pipeline

from neva_model.model import build_model
from tests.exported_models import export_model

COLOURS = ("red", "green", "blue")
QUESTIONS = ("what is it?", "which colour is the larger digit, and is it odd or even? " * 2, "Q1")
KINDS = {"sentencepiece": "v1", "llama 3": "llama_3", "qwen": "chatml", "nothing named": "v1"}


@pytest.fixture(scope="module", params=KINDS)
def export(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    write_tokenizer(request.param, folder / "tokenizer")
    changes = {"data.conv_template": KINDS[request.param], "model.language.max_position_embeddings": 1024}
    recipe = llava_recipe({"model.language.vocab_size": 440, **changes})
    model = build_model(recipe, pre_process=True, post_process=True)
    export_model(model, recipe, str(folder / "tokenizer"), folder / "model")
    return folder / "model"


def chats():
    return [
        [
            {
                "role": "user",
                "content": [
                    {"type": "image", "image": Image.new("RGB", (28, 28), colour)},
                    {"type": "text", "text": question},
                ],
            }
        ]
        for colour, question in zip(COLOURS, QUESTIONS, strict=True)
    ]


@torch.no_grad()
def answers(model, processor, conversations, **kwargs):
    inputs = processor.apply_chat_template(
        conversations, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", **kwargs
    )
    made = model.generate(**inputs, max_new_tokens=12, do_sample=False, eos_token_id=None)
    return made[:, inputs["input_ids"].shape[1] :].tolist()


def test_a_batch_has_the_answers_of_each_alone(export):
    processor = AutoProcessor.from_pretrained(export)
    model = LlavaForConditionalGeneration.from_pretrained(export).eval()
    alone = [answers(model, processor, [chat])[0] for chat in chats()]
    assert len({tuple(answer) for answer in alone}) > 1, "a model that always says the same shows nothing"
    assert answers(model, processor, chats(), padding=True) == alone

    texts = [processor.apply_chat_template(chat, add_generation_prompt=True) for chat in chats()]
    images = [[chat[0]["content"][0]["image"]] for chat in chats()]
    inputs = processor(text=texts, images=images, padding=True, return_tensors="pt")
    made = model.generate(**inputs, max_new_tokens=12, do_sample=False, eos_token_id=None)
    assert made[:, inputs["input_ids"].shape[1] :].tolist() == alone


def test_a_pipeline_has_them_too(export):
    ask = pipeline("image-text-to-text", model=str(export), device="cpu")
    settings = {"max_new_tokens": 12, "do_sample": False}
    alone = [ask(text=[chat], generate_kwargs=settings, return_full_text=False)[0] for chat in chats()]
    together = ask(text=chats(), batch_size=2, generate_kwargs=settings, return_full_text=False)
    assert [one[0]["generated_text"] for one in together] == [one[0]["generated_text"] for one in alone]


def test_the_files_agree_on_the_token_that_fills_up(export):
    tokenizer = AutoProcessor.from_pretrained(export).tokenizer
    assert tokenizer.padding_side == "left" and tokenizer.pad_token_id is not None
    config = json.loads((export / "config.json").read_text())
    generation = json.loads((export / "generation_config.json").read_text())
    named = {config["pad_token_id"], config["text_config"]["pad_token_id"], generation["pad_token_id"]}
    assert named == {tokenizer.pad_token_id}
    assert tokenizer.pad_token_id < config["text_config"]["vocab_size"]
    assert len(tokenizer) <= config["text_config"]["vocab_size"]
