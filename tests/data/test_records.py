"""What the fields of a record mean: used, refused by name, or without a word where they say nothing."""

import json
import re

import pytest

from neva_model.data import encode_conversation, get_template
from neva_recipes.config import DataError
from neva_recipes.prompts.conversation import NothingToLearn, Turn
from neva_recipes.prompts.samples import count_words, image_name, names_image, read_sample
from tests.data.rendering import render
from tests.data.test_templates_golden import LABELS, SYS_LL2, SYS_V1

CHAT = [{"from": "human", "value": "<image>\nColour?"}, {"from": "gpt", "value": "Red."}]
WORDS = [{"from": "human", "value": "Colour?"}, {"from": "gpt", "value": "Red."}]


def sample(turns=CHAT, **fields):
    image = {"image": "a.png"} if turns is CHAT and not {"image", "images"} & fields.keys() else {}
    return {"id": 1, "conversations": turns} | image | fields


def prompt(record, template, tokenizer):
    turns, system, _ = read_sample(record, get_template(template))
    encoded = encode_conversation(turns, get_template(template), tokenizer, tokens_per_image=1, system=system)
    return render(encoded, tokenizer)


LATER = [{"from": "User", "value": "Sure?"}, {"from": "Assistant", "value": "Yes.", "label": "quality:1"}]

# Written out by hand from NeMo's rules: system text as it stands, the labels of each answer, the image in its place.
GOLDEN = [
    (
        "nvgpt",
        sample(
            [CHAT[0], {**CHAT[1], "label": "quality:9,toxicity:1"}, *LATER[:1], {"from": "gpt", "value": "Yes."}],
            image="a.png",
            system="You are a pirate.",
            mask="User",
        ),
        "<extra_id_0>System\nYou are a pirate.<extra_id_1>User\n<image>\nColour?\n<extra_id_1>Assistant\n"
        "<extra_id_2>quality:9,toxicity:1\n[[Red.\n<extra_id_1>]]User\nSure?\n<extra_id_1>Assistant\n"
        f"<extra_id_2>{LABELS}\n[[Yes.\n<extra_id_1>]]",
    ),
    (
        "nvgpt",
        sample([{"from": "human", "value": " Look: <image> here. "}, CHAT[1]], image="a.png", system=""),
        "<extra_id_0>System\n<extra_id_1>User\n Look: <image> here. \n<extra_id_1>Assistant\n"
        f"<extra_id_2>{LABELS}\n[[Red.\n<extra_id_1>]]",
    ),
    (
        "nvgpt",
        sample(WORDS),
        f"<extra_id_0>System\n{SYS_V1}\n\n<extra_id_1>User\nColour?\n<extra_id_1>Assistant\n<extra_id_2>{LABELS}\n"
        "[[Red.\n<extra_id_1>]]",
    ),
    (
        "llama_3",
        sample([{"from": "human", "value": "In <image>, which? "}, CHAT[1]], image="a.png"),
        f"<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{SYS_LL2}<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nIn <image>, which? <|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n[[Red.<|eot_id|>]]",
    ),
    (
        "v1",
        sample(system_prompt="You answer in one word."),
        "<s>You answer in one word. USER: <image>\nColour? ASSISTANT:[[ Red.</s>]]",
    ),
    ("v1", sample(system=" "), f"<s>{SYS_V1} USER: <image>\nColour? ASSISTANT:[[ Red.</s>]]"),
    (
        "llama_2",
        sample([{"from": "system", "value": "Be brief."}, *CHAT], image="a.png"),
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n<image>\nColour? [/INST][[ Red. </s>]]",
    ),
    (
        "chatml",
        {
            "messages": [
                {"role": "system", "content": "S"},
                {"role": "user", "content": "Q"},
                {"role": "assistant", "content": "A"},
            ]
        },
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n[[A<|im_end|>\n]]",
    ),
]


@pytest.mark.parametrize(("template", "record", "expected"), GOLDEN)
def test_what_a_record_says_itself_stands_in_its_prompt(byte_level_tokenizer, template, record, expected):
    assert prompt(record, template, byte_level_tokenizer) == expected


QUIET = [
    {},
    {"id": None, "source": "coco", "width": 3, "height": 4, "model": "gpt-4", "url": "x", "label": "cat"},
    {"system": None, "video": None, "videos": [], "audio": "", "tools": "[]", "mask": "User"},
    {"mask": "masks/1.png", "image_url": "https://example.org/a.png", "weight": 0.5},
    {"images": ["a.png"]},
    {"image": ["a.png"], "images": "a.png"},
    {"messages": None},
    {"videos": [None], "chosen": None, "rejected": ""},
]


@pytest.mark.parametrize("fields", QUIET)
def test_fields_that_say_nothing_are_passed_over(fields):
    record = sample(**fields)
    assert read_sample(record, get_template("v1")) == (
        [Turn("human", "Colour?", image=True), Turn("gpt", "Red.")],
        None,
        "a.png",
    )
    assert names_image(record) and count_words(record) == 3


QUIET_TURNS = [
    ({"loss": False, "weight": 0, "train": None}, {"loss": True, "weight": 1.0, "train": 1}),
    ({"content": "<image>\nColour?", "name": "Ann"}, {"label": "", "tool_calls": [], "reasoning_content": None}),
]


@pytest.mark.parametrize(("question", "answer"), QUIET_TURNS)
def test_fields_of_turns_that_say_what_is_so_anyway_are_passed_over(question, answer):
    turns = [{**CHAT[0], **question}, {**CHAT[1], **answer}]
    assert [turn.text for turn in read_sample(sample(turns, image="a.png"), get_template("v1")).turns] == [
        "Colour?",
        "Red.",
    ]


@pytest.mark.parametrize("nothing", [None, [], [None]])
@pytest.mark.parametrize("field", ["image", "images"])
def test_no_name_is_no_image_to_all_who_ask(field, nothing):
    record = sample(WORDS, **{field: nothing})
    assert read_sample(record, get_template("v1")).image is None
    assert image_name(record) is None and not names_image(record)


ROLES = [("User", "Assistant"), ("USER", "bot"), ("human", "ChatGPT"), (" Human ", "GPT"), ("user", "model")]


@pytest.mark.parametrize(("asks", "answers"), ROLES)
def test_roles_mean_what_they_say_in_any_case(asks, answers):
    turns = [{"from": asks, "value": "Q"}, {"from": answers, "value": "A"}]
    chat = [{"role": asks, "content": "Q"}, {"role": answers, "content": "A"}]
    expected = ([Turn("human", "Q"), Turn("gpt", "A")], None, None)
    assert read_sample({"conversations": turns}, get_template("v1")) == expected
    assert read_sample({"messages": chat}, get_template("v1")) == expected


def with_answer(**fields):
    return sample([CHAT[0], {**CHAT[1], **fields}], image="a.png")


REFUSED = [
    ("v1", sample(video="a.mp4"), "has video"),
    ("v1", sample(WORDS, videos=["a.mp4"]), "has videos"),
    ("v1", sample(WORDS, audio="a.wav"), "has audio"),
    ("v1", sample(tools='[{"name": "f"}]'), "has tools"),
    ("v1", sample(images=["a.png", "b.png"]), "images has 2 names, expected the name of one image file"),
    (
        "v1",
        sample(image=["a.png", "b.png"]),
        "expected the name of one image file: make a sample of each image, or leave the sample out",
    ),
    ("v1", sample(image=float("nan")), "image is NaN, which an empty cell of a table becomes: name the image file, or"),
    ("v1", sample(system=float("nan")), "system is NaN, which an empty cell of a table becomes: write the text, or"),
    ("v1", sample(image="a.png", images=["b.png"]), "image and images name different files"),
    ("v1", sample(image=3), "image is 3, expected the name of one image file"),
    ("v1", sample(images=[["a.png"]]), "images is [['a.png']], expected the name of one image file"),
    ("v1", sample(images=[{"path": "a.png"}]), "expected the name of one image file"),
    ("v1", sample(WORDS, images=["a.png"]), "names an image file in images, but no question has <image>"),
    ("v1", sample(WORDS, image_path="a.png"), "has image_path, but an image is read from image"),
    ("v1", sample(mask="Assistant"), "has mask=Assistant"),
    ("v1", sample(messages=WORDS), "has both conversations and messages"),
    ("v1", with_answer(label="quality:4"), "label, but data.conv_template=v1 has no place for it"),
    ("nvgpt", with_answer(label=4), "turn 2 has label=4, expected a text"),
    ("v1", with_answer(loss=False), "turn 2 has loss=False"),
    ("v1", with_answer(weight=0), "turn 2 has weight=0"),
    ("v1", sample([{**WORDS[0], "loss": True}, WORDS[1]]), "turn 1 has loss=True"),
    ("v1", sample([{**WORDS[0], "weight": 0.5}, WORDS[1]]), "turn 1 has weight=0.5"),
    ("v1", with_answer(tool_calls=[{"id": "1"}]), "turn 2 has tool_calls"),
    ("v1", with_answer(function_call={"name": "f"}), "turn 2 has function_call"),
    ("v1", with_answer(reasoning_content="Hm."), "turn 2 has reasoning_content"),
    ("v1", with_answer(content="Blue."), "turn 2 has both value and content, and they differ"),
    ("v1", sample(WORDS[:1], chosen=WORDS[1], rejected=WORDS[1]), "has chosen, and answers are not compared here"),
    ("v1", sample(rejected_response="No."), "has rejected_response"),
    ("v1", sample(kto_tag=False), "has kto_tag"),
    ("v1", with_answer(image="b.png"), "turn 2 has image of its own"),
    ("v1", sample(system=["You"]), "system is ['You'], expected a text"),
    ("v1", sample(system="a", system_prompt="b"), "system and system_prompt hold different system texts"),
    ("v1", sample(system="an <image>"), "system has <image> in it"),
    ("v1", sample(system="\ud800"), "system holds '\\ud800', half a surrogate pair"),
    ("plain", sample(system="S"), "has system, but data.conv_template=plain has no place for a system text"),
    ("mistral_instruct", sample(system_prompt="S"), "has system_prompt, but data.conv_template=mistral_instruct has"),
    (
        "mistral_instruct",
        sample([{"from": "system", "value": "S"}, *CHAT], image="a.png"),
        "has a turn from system, but data.conv_template=mistral_instruct has no place for a system text",
    ),
    (
        "v1",
        sample([*CHAT, {"from": "system", "value": "S"}], image="a.png"),
        "turn 3 is from system, expected human",
    ),
    ("v1", {"messages": [{"role": "tool", "content": "x"}]}, "turn 1 is from 'tool', expected human or gpt"),
    ("v1", {"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "turn 1 has a list as its content"),
]


@pytest.mark.parametrize(("template", "record", "reason"), REFUSED)
def test_what_would_change_the_training_is_refused_by_name(template, record, reason):
    with pytest.raises(DataError, match=re.escape(reason)) as raised:
        read_sample(record, get_template(template))
    assert not isinstance(raised.value, NothingToLearn)


@pytest.mark.parametrize(
    "turns",
    [
        [CHAT[0]],
        [CHAT[0], {"from": "gpt", "value": " \n"}],
        [CHAT[0], {"from": "gpt", "value": ""}, {"from": "human", "value": "Q"}],
    ],
)
def test_what_teaches_nothing_is_told_from_what_is_bad(turns):
    with pytest.raises(NothingToLearn, match="no answer: nothing to learn from"):
        read_sample(sample(turns, image="a.png"), get_template("v1"))


def test_letters_in_pointed_brackets_are_text_without_such_a_field():
    turns = [{"from": "human", "value": "What is <video>?"}, {"from": "gpt", "value": "A tag, as <audio>."}]
    assert read_sample({"conversations": turns}, get_template("v1")).turns[0].text == "What is <video>?"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("NaN", ": its text is NaN, which an empty cell of a table becomes: write the text, or leave the sample out"),
        ("null", ": its text is null, which an empty cell of a table becomes: write the text, or leave the sample out"),
        ("-Infinity", ": its text is -Infinity, which a number too large or a division by zero becomes: write the te"),
        ("1e999", ": its text is Infinity, which a number too large or a division by zero becomes: write the text"),
        ("12", ': its text is 12, expected it in quotes, "12"'),
        ("true", ': its text is true, expected it in quotes, "true"'),
    ],
)
def test_only_what_is_an_answer_is_to_be_put_in_quotes(written, said):
    """In quotes, an empty cell would teach the model to answer "NaN"."""
    record = json.loads(
        '{"image": "a.png", "conversations": [{"from": "human", "value": "<image>\\nHow many?"}, '
        f'{{"from": "gpt", "value": {written}}}]}}'
    )
    with pytest.raises(DataError) as raised:
        read_sample(record, get_template("v1"))
    assert said in str(raised.value) and (written in "12 true") == ("in quotes" in str(raised.value))
