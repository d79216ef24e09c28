"""A record of another program's format is named as that, with what to make of it."""

import pytest

from neva_recipes.config import DataError
from neva_recipes.prompts.conversation import NothingToLearn
from neva_recipes.prompts.samples import read_sample
from neva_recipes.prompts.templates import get_template

ASKED = [{"role": "user", "content": "<image>\nWhat?"}, {"role": "assistant", "content": "A cat."}]
PARTS = [{"type": "image_url", "image_url": {"url": "a.png"}}, {"type": "text", "text": "What?"}]
BOXES = {"ref": ["cat"], "bbox": [[1, 2, 3, 4]]}


def talk(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


FOREIGN = {
    "OpenAI beside a column of no turns": (
        {"conversations": None, "messages": [{"role": "user", "content": PARTS}, ASKED[1]]},
        "the chat format of OpenAI",
    ),
    "OpenAI": ({"messages": [{"role": "user", "content": PARTS}, ASKED[1]]}, "the chat format of OpenAI"),
    "pictures inside": (
        {"messages": ASKED, "images": [{"bytes": "..."}]},
        "ms-swift and data sets with pictures inside",
    ),
    "several pictures": (
        {"messages": ASKED, "images": ["a.png", "b.png"]},
        "samples with several pictures are not read",
    ),
    "tools": (
        {"conversations": [{"from": "human", "value": "?"}, {"from": "function_call", "value": "{}"}]},
        "ShareGPT",
    ),
    "Alpaca": ({"instruction": "What?", "input": "", "output": "A cat."}, "Alpaca"),
    "query": (
        {"query": "<image>What?", "response": "A cat.", "images": ["a.png"]},
        "ms-swift's query and response: write",
    ),
    "table": ({"image": "a.png", "question": "What?", "answer": "A cat."}, "a table of questions"),
    "caption": ({"image": "a.png", "caption": "A cat."}, 'like a caption: write {"image": FILE, "conversations"'),
    "boxes": (
        {"messages": talk("<image>\nWhere is the <ref-object>?", "At <bbox>."), "images": ["a.png"], "objects": BOXES},
        "<ref-object> in its text, which ms-swift replaces by an entry of objects",
    ),
    "boxes in the answer": (
        {"messages": talk("<image>\nWhere is the cat?", "At <bbox>."), "images": ["a.png"], "objects": BOXES},
        "<bbox> in its text, which ms-swift replaces by an entry of objects",
    ),
    "boxes of an older version": (
        {"messages": talk("Where?", "At <bbox>."), "objects": '[{"caption": "cat", "bbox": [1, 2, 3, 4]}]'},
        "write the names and boxes into the text",
    ),
    "boxes before the image": (
        {"messages": talk("The <bbox>: <image>\nWhat?", "A cat."), "images": ["a.png"], "objects": BOXES},
        "<bbox> in its text",
    ),
    "Qwen-VL": (
        {"conversations": talk("Picture 1: <img>shots/a.JPG</img>\nWhat?", "A cat.")},
        "has <img>shots/a.JPG</img> in its text, as Qwen-VL's files name an image: write <image> in its place, and the "
        "file into image of the sample",
    ),
    "Qwen-VL beside a name": (
        {"image": "a.png", "conversations": talk("<img>a.png</img>What?", "A cat.")},
        "(<img> is another program's place of an image: write <image>)",
    ),
    "Phi": ({"image": "a.png", "conversations": talk("<|image_1|>\nWhat?", "A cat.")}, "(<|image_1|> is another"),
    "MMMU": ({"image": "a.png", "conversations": talk("<image_1> What?", "A cat.")}, "(<image_1> is another"),
    "Qwen2-VL": (
        {"image": "a.png", "messages": talk("<|vision_start|><|image_pad|><|vision_end|>What?", "A cat.")},
        "(<|image_pad|> is another program's place of an image: write <image>)",
    ),
    "misspelt": ({"id": 1, "conversation": ASKED}, "(it has conversation: did you mean conversations?)"),
    "misspelt messages": ({"conversations": None, "Message": ASKED}, "(it has Message: did you mean messages?)"),
}


@pytest.mark.parametrize(("record", "message"), FOREIGN.values(), ids=FOREIGN)
def test_a_format_is_named(record, message):
    with pytest.raises(DataError) as raised:
        read_sample(record, get_template("v1"))
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_what_is_read_is_no_foreign_format():
    sample = read_sample({"messages": ASKED, "images": ["a.png"]}, get_template("v1"))
    assert (sample.image, sample.turns[1].text) == ("a.png", "A cat.")


@pytest.mark.parametrize(
    "record",
    [
        {"messages": talk("What does <bbox> mean?", "A box.")},
        {"messages": talk("What does <bbox> mean?", "A box."), "objects": []},
        {"messages": talk("Where?", "<ref>The cat</ref><box>(1,2),(3,4)</box>"), "objects": BOXES},
        {"messages": talk("How does HTML show one?", "<img>a.png</img> is wrong.")},
        {"messages": talk("Is <img>text</img> or <video> or <|image_1|> right?", "No.")},
    ],
)
def test_what_only_resembles_a_placeholder_is_text(record):
    turns = read_sample(record, get_template("v1")).turns
    assert [turn.text for turn in turns] == [turn["content"] for turn in record["messages"]]


def test_mistakes_of_our_own_format_stay_as_they_are():
    with pytest.raises(DataError, match=r"empty or missing: expected a list of turns$"):
        read_sample({"image": "a.png"}, get_template("v1"))
    with pytest.raises(DataError, match=r"no question has <image>$"):
        read_sample(
            {"image": "a.png", "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "A"}]},
            get_template("v1"),
        )
    with pytest.raises(NothingToLearn, match=r"nothing to learn from$"):
        read_sample({"conversations": [{"from": "human", "value": "?"}], "caption": "A"}, get_template("v1"))
