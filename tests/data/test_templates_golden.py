"""Every template, character for character, against the written-out prompts of the projects it reproduces."""

import re

import jinja2
import pytest
import sentencepiece

from neva_model.data import Turn, encode_conversation, encode_prompt, get_template
from neva_model.tokenizers import load_tokenizer
from neva_recipes.config import DataError
from neva_recipes.prompts.templates import TEMPLATES
from tests.data.rendering import render, spell

TURNS = [Turn("human", "Q1", image=True), Turn("gpt", "A1"), Turn("human", "Q2"), Turn("gpt", "A2")]

SYS_V1 = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)
SYS_LL2 = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
SYS_L2 = (
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being safe.  "
    "Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. "
    "Please ensure that your responses are socially unbiased and positive in nature.\n\n"
    "If a question does not make any sense, or is not factually coherent, explain why instead of answering something "
    "not correct. If you don't know the answer to a question, please don't share false information."
)
SYS_HUMAN = SYS_V1.replace("user and", "human and").replace("user's", "human's")
SYS_MPT = "A conversation between a user and an LLM-based AI assistant. The assistant gives helpful and honest answers."
LABELS = "quality:4,toxicity:0,humor:0,creativity:0,helpfulness:4,correctness:4,coherence:4,complexity:4,verbosity:4"

GOLDEN = {
    "plain": "<s><image>[[A1\n]]",
    "v1": f"<s>{SYS_V1} USER: <image>\nQ1 ASSISTANT:[[ A1</s>]]USER: Q2 ASSISTANT:[[ A2</s>]]",
    "llama_2": (
        f"<s>[INST] <<SYS>>\n{SYS_L2}\n<</SYS>>\n\n<image>\nQ1 [/INST][[ A1 </s>]]<s>[INST] Q2 [/INST][[ A2 </s>]]"
    ),
    "llava_llama_2": (
        f"<s>[INST] <<SYS>>\n{SYS_LL2}\n<</SYS>>\n\n<image>\nQ1 [/INST][[ A1 </s>]]<s>[INST] Q2 [/INST][[ A2 </s>]]"
    ),
    "mistral_instruct": "<s>[INST] <image>\nQ1 [/INST][[ A1 </s>]][INST] Q2 [/INST][[ A2 </s>]]",
    "nvgpt": (
        f"<extra_id_0>System\n{SYS_V1}\n\n<extra_id_1>User\n<image>\nQ1\n<extra_id_1>Assistant\n<extra_id_2>{LABELS}\n"
        f"[[A1\n<extra_id_1>]]User\nQ2\n<extra_id_1>Assistant\n<extra_id_2>{LABELS}\n[[A2\n<extra_id_1>]]"
    ),
    "llama_3": (
        f"<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{SYS_LL2}<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n<image>\nQ1<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n[[A1<|eot_id|>]]"
        "<|start_header_id|>user<|end_header_id|>\n\nQ2<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n[[A2<|eot_id|>]]"
    ),
    "chatml": (
        "<|im_start|>system\nAnswer the questions.<|im_end|>\n<|im_start|>user\n<image>\nQ1<|im_end|>\n"
        "<|im_start|>assistant\n[[A1<|im_end|>\n]]<|im_start|>user\nQ2<|im_end|>\n"
        "<|im_start|>assistant\n[[A2<|im_end|>\n]]"
    ),
}

GOLDEN |= {
    "llava_v1_human": f"<s>{SYS_HUMAN} USER: <image>\nQ1 ASSISTANT:[[ A1</s>]]USER: Q2 ASSISTANT:[[ A2</s>]]",
    "chatml_direct": (
        "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<image>\nQ1<|im_end|>"
        "<|im_start|>assistant\n[[A1<|im_end|>]]<|im_start|>user\nQ2<|im_end|><|im_start|>assistant\n[[A2<|im_end|>]]"
    ),
    "mpt": (
        f"<|im_start|>system\n{SYS_MPT}<|im_end|><|im_start|>user\n<image>\nQ1<|im_end|>"
        "<|im_start|>assistant\n[[A1<|im_end|>]]<|im_start|>user\nQ2<|im_end|><|im_start|>assistant\n[[A2<|im_end|>]]"
    ),
    "nv_steerlm": GOLDEN["nvgpt"],
    "nv_dpo": (
        "<extra_id_0>System\n\n<extra_id_1>User\n<image>\nQ1\n<extra_id_1>Assistant\n[[A1\n<extra_id_1>]]"
        "User\nQ2\n<extra_id_1>Assistant\n[[A2\n<extra_id_1>]]"
    ),
    "yi_34b": (
        "<|im_start|>user\n<image>\nQ1<|im_end|>\n<|im_start|>assistant\n[[A1<|im_end|>\n]]"
        "<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n[[A2<|im_end|>\n]]"
    ),
    "gemma": (
        "<bos><start_of_turn>user\n<image>\nQ1<end_of_turn>\n<start_of_turn>model\n[[A1<end_of_turn>\n]]"
        "<start_of_turn>user\nQ2<end_of_turn>\n<start_of_turn>model\n[[A2<end_of_turn>\n]]"
    ),
    "megatron_mistral": "<s>[INST] <image>\nQ1[/INST][[ A1</s>]][INST] Q2[/INST][[ A2</s>]]",
    "megatron_qwen2": GOLDEN["chatml"],
    "llamafactory_vicuna": f"{SYS_V1}USER: <image>\nQ1 ASSISTANT:[[A1</s>]]USER: Q2 ASSISTANT:[[A2</s>]]",
    # XTuner's, without the separator behind the last answer.
    "internlm2_chat": (
        "<s><|im_start|>user\n<image>\nQ1<|im_end|>\n<|im_start|>assistant\n[[A1<|im_end|>]]\n"
        "<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n[[A2<|im_end|>]]"
    ),
    "xtuner_qwen_chat": (
        "<|im_start|>user\n<image>\nQ1<|im_end|>\n<|im_start|>assistant\n[[A1<|im_end|>]]\n"
        "<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n[[A2<|im_end|>]]"
    ),
    "xtuner_phi3_chat": (
        "<s><|user|>\n<image>\nQ1<|end|>\n<|assistant|>\n[[A1<|end|>]]\n<|user|>\nQ2<|end|>\n<|assistant|>\n[[A2<|end|>]]"
    ),
    "xtuner_vicuna": "<s>USER: <image>\nQ1 ASSISTANT:[[A1</s>]]\n<s>USER: Q2 ASSISTANT:[[A2</s>]]",
    "xtuner_llama2_chat": "<s>[INST] <image>\nQ1 [/INST][[A1</s>]]\n<s>[INST] Q2 [/INST][[A2</s>]]",
    "xtuner_mistral": "<s>[INST] <image>\nQ1 [/INST][[A1</s>]]\n<s>[INST] Q2 [/INST][[A2</s>]]",
}

SENTENCEPIECE_TEMPLATES = ["plain", "v1", "llama_2", "llava_llama_2", "mistral_instruct", "llava_v1_human"]


def turns_for(name):
    return TURNS[:2] if name == "plain" else TURNS


@pytest.mark.parametrize("name", TEMPLATES)
def test_prompt_and_loss_spans(byte_level_tokenizer, name):
    encoded = encode_conversation(turns_for(name), get_template(name), byte_level_tokenizer, tokens_per_image=1)
    assert render(encoded, byte_level_tokenizer) == GOLDEN[name]


@pytest.mark.parametrize("name", [*SENTENCEPIECE_TEMPLATES, "nvgpt"])
def test_prompt_and_loss_spans_with_sentencepiece(sentencepiece_tokenizer, name):
    encoded = encode_conversation(turns_for(name), get_template(name), sentencepiece_tokenizer, tokens_per_image=1)
    golden = GOLDEN[name]
    if name == "nvgpt":
        golden = f" {golden}"
    else:
        # SentencePiece's own space: at the begin of the text, and where LLaVA's cut at the image begins another.
        golden = golden.replace("<s>", "<s> ", 1).replace("<image>", "<image> ").replace("<s> <image>", "<s><image>")
        golden = golden.replace("<image> [[", "<image>[[ ")
    assert render(encoded, sentencepiece_tokenizer) == golden


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_prompt_ends_where_the_answer_begins(byte_level_tokenizer, name):
    template, turns = get_template(name), turns_for(name)
    for answer in range(1, len(turns), 2):
        prompt = encode_prompt(turns[:answer], template, byte_level_tokenizer, tokens_per_image=3)
        whole = encode_conversation(turns, template, byte_level_tokenizer, tokens_per_image=3)
        assert prompt.tokens == whole.tokens[: len(prompt.tokens)].tolist()
        assert whole.loss_mask[len(prompt.tokens)] and not whole.loss_mask[len(prompt.tokens) - 1]


@pytest.mark.parametrize(
    ("name", "stop", "strings"),
    [
        ("plain", "</s>", ("\n",)),
        ("v1", "</s>", ()),
        ("llama_2", "</s>", ()),
        ("llava_llama_2", "</s>", ()),
        ("mistral_instruct", "</s>", ()),
        ("nvgpt", "<extra_id_1>", ()),
        ("llama_3", "<|eot_id|>", ()),
        ("chatml", "<|im_end|>", ()),
        ("llava_v1_human", "</s>", ()),
        ("chatml_direct", "<|im_end|>", ()),
        ("nv_dpo", "<extra_id_1>", ()),
        ("gemma", "<end_of_turn>", ()),
        ("llamafactory_vicuna", "</s>", ()),
        ("internlm2_chat", "<|im_end|>", ()),
        ("xtuner_phi3_chat", "<|end|>", ()),
        ("xtuner_vicuna", "</s>", ()),
    ],
)
def test_what_ends_an_answer(byte_level_tokenizer, name, stop, strings):
    prompt = encode_prompt(TURNS[:1], get_template(name), byte_level_tokenizer, tokens_per_image=1)
    assert {spell([token], byte_level_tokenizer) for token in prompt.stop_ids} == {stop, "</s>"}
    assert prompt.stop_strings == strings


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_image_takes_its_positions_and_marks(byte_level_directory, name):
    # This vocabulary has NeMo's tokens, so they mark the image.
    tokenizer = load_tokenizer(str(byte_level_directory), vocab_size=None, use_im_start_end=True)
    encoded = encode_conversation(turns_for(name), get_template(name), tokenizer, tokens_per_image=4)
    marked = "<image>" * 4 if name == "plain" else "<extra_id_4>" + "<image>" * 4 + "<extra_id_5>"
    assert render(encoded, tokenizer) == GOLDEN[name].replace("<image>", marked)


def test_a_tokenizer_without_the_templates_tokens_is_refused(sentencepiece_tokenizer):
    for name, missing in (("llama_3", "<|begin_of_text|>"), ("chatml", "<|im_start|>")):
        with pytest.raises(DataError) as raised:
            encode_conversation(TURNS, get_template(name), sentencepiece_tokenizer, tokens_per_image=1)
        assert missing in str(raised.value)


# The chat templates that the models' publishers ship with their tokenizers, in short.
PUBLISHED = {
    "llama_2": (
        "{% for m in messages[1:] %}{% if m.role == 'user' %}{% set c = m.content %}"
        "{% if loop.first %}{% set c = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' + c %}{% endif %}"
        "{{ '<s>[INST] ' + c + ' [/INST]' }}{% else %}{{ ' ' + m.content + ' </s>' }}{% endif %}{% endfor %}"
    ),
    "llama_3": (
        "{{ '<|begin_of_text|>' }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n'"
        " + m.content + '<|eot_id|>' }}{% endfor %}"
    ),
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}",
}
SYSTEM = {"llama_2": SYS_L2, "llama_3": SYS_LL2, "chatml": "Answer the questions."}


@pytest.mark.parametrize("name", PUBLISHED)
def test_text_conversations_equal_the_published_chat_templates(byte_level_tokenizer, name):
    turns = [Turn("human", "What is shown?"), Turn("gpt", "A seven."), Turn("human", "Is it odd?"), Turn("gpt", "Yes.")]
    messages = [{"role": "system", "content": SYSTEM[name]}]
    messages += [{"role": "user" if t.role == "human" else "assistant", "content": t.text} for t in turns]
    text = jinja2.Template(PUBLISHED[name]).render(messages=messages)
    encoded = encode_conversation(turns, get_template(name), byte_level_tokenizer, tokens_per_image=1)
    # transformers cuts the special tokens out of the rendered text and encodes what lies between.
    assert encoded.tokens.tolist() == byte_level_tokenizer.hf(text, add_special_tokens=False).input_ids


def training_time_ids(prompt, library, *, legacy):
    """Encode a prompt as transformers 4.37's LlamaTokenizer and LLaVA's cut at `<image>` do, by SentencePiece alone.

    Each part between images begins with SentencePiece's space; behind </s> or <s> text has one with `legacy` only.
    """
    ids = [library.bos_id()]
    for number, part in enumerate(prompt.split("<image>")):
        ids += [-200] if number else []
        begins = True
        for element in filter(None, re.split("(</?s>)", part)):
            if element in ("<s>", "</s>"):
                ids.append(library.piece_to_id(element))
            else:
                # Behind a newline, which is a piece of its own, the library adds no space.
                space = " " if begins or legacy else ""
                ids += library.encode("\n" + space + element)[2:]
            begins = False
    return ids


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", SENTENCEPIECE_TEMPLATES)
def test_ids_are_those_of_the_original_training(llama_directories, name, legacy):
    tokenizer = load_tokenizer(str(llama_directories[legacy]), vocab_size=None)
    library = sentencepiece.SentencePieceProcessor(model_file=str(llama_directories[legacy] / "tokenizer.model"))
    turns = [
        Turn("human", "What  digit is\nshown? \u00e9", image=True),
        Turn("gpt", " It is a 7.\n\tYes "),
        Turn("human", "Why? "),
        Turn("gpt", "It looks like one."),
    ]
    turns = turns[:2] if name == "plain" else turns
    golden = GOLDEN[name].replace("[[", "").replace("]]", "").removeprefix("<s>")
    for key, turn in zip(("Q1", "A1", "Q2", "A2"), turns, strict=False):
        golden = golden.replace(key, turn.text)
    encoded = encode_conversation(turns, get_template(name), tokenizer, tokens_per_image=1)
    assert encoded.tokens.tolist() == training_time_ids(golden, library, legacy=legacy)


def test_nvgpt_is_one_text_to_sentencepiece(sentencepiece_tokenizer, sentencepiece_model):
    """NeMo encodes the whole prompt by SentencePiece, to which `<extra_id_N>` are pieces of its own."""
    library = sentencepiece.SentencePieceProcessor(model_file=str(sentencepiece_model))
    turns = [Turn("human", "What  digit?\n \u00e9"), Turn("gpt", " It is a 7. "), *TURNS[2:]]
    text = GOLDEN["nvgpt"].replace("[[", "").replace("]]", "").replace("<image>\nQ1", turns[0].text)
    encoded = encode_conversation(turns, get_template("nvgpt"), sentencepiece_tokenizer, tokens_per_image=1)
    assert encoded.tokens.tolist() == library.encode(text.replace("A1", turns[1].text))
    assert encoded.tokens[0] == library.piece_to_id("\u2581")
