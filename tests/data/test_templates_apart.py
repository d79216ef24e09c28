"""Templates whose originals encode questions and answers apart: tokens and labels are those of what the originals do.

Here the originals' ways are written out with transformers' own tokenizers and no code of this package.
"""

import shutil

import jinja2
import pytest
from transformers import AutoTokenizer

from neva_model.data import Turn, encode_conversation, get_template
from neva_model.tokenizers import load_tokenizer
from neva_recipes.config import DataError
from neva_recipes.prompts.samples import read_sample
from tests.data.inputs import SPECIALS

IGNORED, IMAGE = -100, -200
SYS_V1 = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)
SYS_META = (
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being safe. "
    "Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. "
    "Please ensure that your responses are socially unbiased and positive in nature."
)
IM = ("<|im_start|>system\n{}<|im_end|>\n", "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>")

# The system text, the question, the suffix of an answer that takes the place of the end token, whether there is a BOS.
XTUNER = {
    "internlm2_chat": (*IM, True),
    "xtuner_qwen_chat": (*IM, False),
    "xtuner_phi3_chat": ("<|system|>\n{}<|end|>\n", "<|user|>\n{}<|end|>\n<|assistant|>\n", "<|end|>", True),
    "xtuner_vicuna": (SYS_V1 + " {}\n ", "USER: {} ASSISTANT:", "", True),
    "xtuner_llama2_chat": (f"[INST] <<SYS>>\n {SYS_META}\n{{}}\n<</SYS>>\n [/INST] ", "[INST] {} [/INST]", "", True),
    "xtuner_mistral": ("[INST] {} [/INST]\n", "[INST] {} [/INST]", "", True),
}
TALK = ["What digit is shown,\n a seven? \u00e9", "It is a 7.\nYes ", "Why?", "A user's image", "And?", "The seven."]


@pytest.fixture(params=["first", "always", "byte-level"])
def directory(request, tmp_path, llama_directories, byte_level_directory):
    """A tokenizer with a leading space at the start of a text, behind each special token too, or nowhere."""
    if request.param == "byte-level":
        return byte_level_directory
    legacy, folder = request.param == "always", tmp_path / "tokenizer"
    hf = AutoTokenizer.from_pretrained(llama_directories[legacy])
    hf.add_tokens(SPECIALS, special_tokens=True)
    hf.add_tokens(["<image>"], special_tokens=True)
    hf.save_pretrained(folder)
    shutil.copy(llama_directories[legacy] / "tokenizer_config.json", folder)
    return folder


def plain_ids(hf, text):
    return hf.encode(text, add_special_tokens=False)


def cut_at_image(hf, text):
    """Encode what stands before and behind an image apart, as XTuner and LLaVA do."""
    before, *behind = text.split("<image>")
    return plain_ids(hf, before) + [token for part in behind for token in (IMAGE, *plain_ids(hf, part))]


def xtuner_ids(hf, name, talk, system):
    system_form, question_form, suffix, has_bos = XTUNER[name]
    bos = [hf.convert_tokens_to_ids("<s>")] if has_bos else []
    ids, labels, needs_bos = [], [], True
    for number in range(0, len(talk), 2):
        question = question_form.format(talk[number])
        if system and number == 0:
            question = system_form.format(system) + question
        prompt = (bos if needs_bos else []) + cut_at_image(hf, question)
        answer = plain_ids(hf, talk[number + 1] + suffix) + ([] if suffix else [hf.convert_tokens_to_ids("</s>")])
        separator = plain_ids(hf, "\n") if number + 2 < len(talk) else []
        ids += prompt + answer + separator
        labels += [IGNORED] * len(prompt) + answer + [IGNORED] * len(separator)
        needs_bos = not suffix
    return ids, labels


def llamafactory_ids(hf, talk, system):
    ids = plain_ids(hf, system or SYS_V1)
    labels = [IGNORED] * len(ids)
    for question, answer in zip(talk[::2], talk[1::2], strict=True):
        prompt = plain_ids(hf, f"USER: {question} ASSISTANT:")
        said = [*plain_ids(hf, answer), hf.convert_tokens_to_ids("</s>")]
        ids, labels = ids + prompt + said, labels + [IGNORED] * len(prompt) + said
    image = hf.convert_tokens_to_ids("<image>")
    return [IMAGE if token == image else token for token in ids], labels


def ours(directory, name, talk, system):
    tokenizer = load_tokenizer(str(directory), vocab_size=None)
    turns = []
    for number, text in enumerate(talk):
        words = text.removeprefix("<image>\n")
        turns.append(Turn("gpt" if number % 2 else "human", words, image=words != text))
    encoded = encode_conversation(turns, get_template(name), tokenizer, tokens_per_image=1, system=system)
    tokens = encoded.tokens.tolist()
    return tokens, [t if on else IGNORED for t, on in zip(tokens, encoded.loss_mask.tolist(), strict=True)]


@pytest.mark.parametrize("system", [None, "Answer in one word."])
@pytest.mark.parametrize("has_image", [True, False])
@pytest.mark.parametrize("name", XTUNER)
def test_xtuner(directory, name, has_image, system):
    talk = [f"<image>\n{TALK[0]}", *TALK[1:]] if has_image else TALK
    hf = AutoTokenizer.from_pretrained(directory)
    assert ours(directory, name, talk, system) == xtuner_ids(hf, name, talk, system)


@pytest.mark.parametrize("system", [None, "Answer in one word."])
@pytest.mark.parametrize("has_image", [True, False])
def test_llamafactory(directory, has_image, system):
    talk = [f"<image>\n{TALK[0]}", *TALK[1:]] if has_image else TALK
    hf = AutoTokenizer.from_pretrained(directory)
    assert ours(directory, "llamafactory_vicuna", talk, system) == llamafactory_ids(hf, talk, system)


# Chat templates of the originals that render a whole conversation and encode it once.
RENDERED = {
    "megatron_mistral": (
        "<s>{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]"
        "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
    ),
    "megatron_qwen2": (
        "<|im_start|>system\nAnswer the questions.<|im_end|>\n"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    ),
    "gemma": (
        "<bos>{% for m in messages %}<start_of_turn>{{ 'user' if m.role == 'user' else 'model' }}\n"
        "{{ m.content }}<end_of_turn>\n{% endfor %}"
    ),
    "yi_34b": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
}


@pytest.mark.parametrize(
    ("name", "has_image"), [*((name, False) for name in RENDERED), ("megatron_mistral", True), ("megatron_qwen2", True)]
)
def test_prompts_of_one_text(directory, name, has_image):
    talk = [f"<image>\n{TALK[0]}", *TALK[1:]] if has_image else TALK
    messages = [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(talk)]
    text = jinja2.Template(RENDERED[name], keep_trailing_newline=True).render(messages=messages)
    hf = AutoTokenizer.from_pretrained(directory)
    image = hf.convert_tokens_to_ids("<image>")
    ids = [IMAGE if token == image else token for token in plain_ids(hf, text)]
    assert ours(directory, name, talk, None)[0] == ids


RECORD = {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}


@pytest.mark.parametrize("name", ["plain", "mistral_instruct", "gemma", "megatron_mistral", "yi_34b"])
def test_a_system_text_without_a_place_is_refused(name):
    with pytest.raises(DataError, match=f"has system, but data.conv_template={name} has no place for a system text"):
        read_sample({**RECORD, "system": "S"}, get_template(name))


@pytest.mark.parametrize(("name", "kept"), [("xtuner_vicuna", None), ("llamafactory_vicuna", None), ("nv_dpo", "")])
def test_an_empty_system_text(name, kept):
    """XTuner and LLaMA-Factory take an empty system text for none; to NeMo it is a text."""
    assert read_sample({**RECORD, "system": ""}, get_template(name)).system == kept
