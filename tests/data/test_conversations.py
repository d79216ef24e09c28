"""Loss lies exactly on answers whatever the words are, and conversations that make no sense are refused."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neva_model.data import Turn, encode_conversation, encode_prompt, get_template
from neva_recipes.config import DataError
from neva_recipes.prompts.conversation import parse_turns
from neva_recipes.prompts.templates import TEMPLATES
from tests.data.inputs import SPECIALS
from tests.data.rendering import spell

AROUND_ANSWERS = {
    "plain": ("", "\n"),
    "v1": (" ", "</s>"),
    "llama_2": (" ", " </s>"),
    "llava_llama_2": (" ", " </s>"),
    "mistral_instruct": (" ", " </s>"),
    "nvgpt": ("", "\n<extra_id_1>"),
    "llama_3": ("", "<|eot_id|>"),
    "chatml": ("", "<|im_end|>\n"),
    "llava_v1_human": (" ", "</s>"),
    "chatml_direct": ("", "<|im_end|>"),
    "mpt": ("", "<|im_end|>"),
    "nv_steerlm": ("", "\n<extra_id_1>"),
    "nv_dpo": ("", "\n<extra_id_1>"),
    "yi_34b": ("", "<|im_end|>\n"),
    "gemma": ("", "<end_of_turn>\n"),
    "megatron_mistral": (" ", "</s>"),
    "megatron_qwen2": ("", "<|im_end|>\n"),
    "llamafactory_vicuna": ("", "</s>"),
    "internlm2_chat": ("", "<|im_end|>"),
    "xtuner_qwen_chat": ("", "<|im_end|>"),
    "xtuner_phi3_chat": ("", "<|end|>"),
    "xtuner_vicuna": ("", "</s>"),
    "xtuner_llama2_chat": ("", "</s>"),
    "xtuner_mistral": ("", "</s>"),
}

WORDS = st.lists(
    st.sampled_from([*SPECIALS, "<image>", "USER:", " ASSISTANT: ", "[INST]", "[/INST] ", "\n", " ", "###", "user\n"])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    max_size=8,
).map("".join)


@st.composite
def conversations(draw):
    name = draw(st.sampled_from(sorted(TEMPLATES)))
    exchanges = 1 if name == "plain" else draw(st.integers(1, 4))
    image_at = 0 if name == "plain" else draw(st.sampled_from([None, *range(exchanges)]))
    turns = []
    for number in range(exchanges):
        turns += [Turn("human", draw(WORDS), image=number == image_at), Turn("gpt", draw(WORDS))]
    return name, turns


def loss_spans(encoded, tokenizer):
    spans, before = [], False
    for token, carries_loss in zip(encoded.tokens.tolist(), encoded.loss_mask.tolist(), strict=True):
        if carries_loss and not before:
            spans.append([])
        if carries_loss:
            spans[-1].append(token)
        before = carries_loss
    return [spell(span, tokenizer) for span in spans]


@settings(max_examples=200, deadline=None)
@given(conversation=conversations())
def test_loss_lies_on_the_answers_and_nowhere_else(byte_level_tokenizer, conversation):
    name, turns = conversation
    encoded = encode_conversation(turns, get_template(name), byte_level_tokenizer, tokens_per_image=2)
    begin, end = AROUND_ANSWERS[name]
    answers = [begin + turn.text + end for turn in turns if turn.role == "gpt" and turn.text.strip()]
    assert loss_spans(encoded, byte_level_tokenizer) == answers


@settings(max_examples=200, deadline=None)
@given(conversation=conversations())
def test_special_tokens_and_images_come_from_the_template_alone(byte_level_tokenizer, conversation):
    name, turns = conversation
    harmless = [Turn(turn.role, "a", turn.image) for turn in turns]
    special = {-200, *byte_level_tokenizer.hf.get_added_vocab().values()}
    skeletons = []
    for variant in (turns, harmless):
        encoded = encode_conversation(variant, get_template(name), byte_level_tokenizer, tokens_per_image=2)
        skeletons.append([token for token in encoded.tokens.tolist() if token in special])
    assert skeletons[0] == skeletons[1]


@settings(max_examples=100, deadline=None)
@given(conversation=conversations())
def test_labels_are_the_next_tokens_of_answers(byte_level_tokenizer, conversation):
    name, turns = conversation
    encoded = encode_conversation(turns, get_template(name), byte_level_tokenizer, tokens_per_image=2)
    if not any(turn.text.strip() for turn in turns if turn.role == "gpt"):
        with pytest.raises(DataError, match="nothing to learn from"):
            encoded.to_sample(10_000)
        return
    sample = encoded.to_sample(10_000)
    tokens, labels = sample.tokens.tolist(), sample.labels.tolist()
    assert labels[-1] == -100
    for position in range(len(tokens) - 1):
        assert labels[position] == (tokens[position + 1] if encoded.loss_mask[position + 1] else -100)


@settings(max_examples=100, deadline=None)
@given(conversation=conversations())
def test_a_prompt_is_what_stands_before_its_answer(byte_level_tokenizer, conversation):
    name, turns = conversation
    whole = encode_conversation(turns, get_template(name), byte_level_tokenizer, tokens_per_image=2)
    prompt = encode_prompt(turns[:-1], get_template(name), byte_level_tokenizer, tokens_per_image=2)
    assert whole.tokens[: len(prompt.tokens)].tolist() == prompt.tokens
    assert not whole.loss_mask[len(prompt.tokens) - 1]


def parse_conversation(conversations, *, has_image, moves_image=True):
    """Return the turns alone."""
    return parse_turns(conversations, image_field="image" if has_image else None, moves_image=moves_image)[0]


def entries(*values):
    return [{"from": "gpt" if n % 2 else "human", "value": value} for n, value in enumerate(values)]


def test_the_image_moves_to_the_front_of_its_turn():
    for written in ("<image>\nWhat?", "What?\n<image>", "<image> What? ", "<image>What?"):
        assert parse_conversation(entries(written, " A "), has_image=True) == [
            Turn("human", "What?", image=True),
            Turn("gpt", " A "),
        ]
    assert parse_conversation(entries("<image>", "A"), has_image=True)[0] == Turn("human", "", image=True)


def test_or_it_stays_where_it_stands_and_nothing_is_stripped():
    for before, after in (("", "\nWhat?"), (" What? \n", ""), ("In ", ", what? ")):
        turn, answer = parse_conversation(entries(f"{before}<image>{after}", " A "), has_image=True, moves_image=False)
        assert turn == Turn("human", after, image=True, before_image=before) and answer == Turn("gpt", " A ")


def test_other_names_of_the_roles():
    turns = parse_conversation([{"from": "user", "value": " Q "}, {"from": "assistant", "value": "A"}], has_image=False)
    assert turns == [Turn("human", " Q "), Turn("gpt", "A")]


def test_an_empty_answer_loses_its_own_loss_only(byte_level_tokenizer):
    turns = parse_conversation(entries("Q1", "A1", "Q2", " ", "Q3", "A3", "Q4", ""), has_image=False)
    encoded = encode_conversation(turns, get_template("v1"), byte_level_tokenizer, tokens_per_image=1)
    assert loss_spans(encoded, byte_level_tokenizer) == [" A1</s>", " A3</s>"]


def test_a_last_question_is_left_out(byte_level_tokenizer):
    with_question = parse_conversation(entries("Q1", "A1", "Q2"), has_image=False)
    assert with_question == parse_conversation(entries("Q1", "A1"), has_image=False)


@pytest.mark.parametrize(
    ("conversation", "has_image", "reason"),
    [
        ([], False, "conversations is empty or missing"),
        (None, False, "conversations is empty or missing"),
        ("Q1", False, "conversations is empty or missing"),
        (["Q1"], False, "turn 1 is not of the form"),
        ([{"from": "human"}], False, "turn 1 is not of the form"),
        ([{"from": "human", "value": 3}], False, "turn 1 is not of the form"),
        ([*entries("Q1"), {"from": "gpt", "value": 7}], False, '"text"}: its text is 7, expected it in quotes, "7"'),
        ([{"from": "narrator", "value": "S"}], False, "turn 1 is from 'narrator', expected human or gpt"),
        ([{"from": "gpt", "value": "A"}], False, "turn 1 is from gpt, expected human"),
        (entries("Q1", "A1") + entries("Q2")[:1] * 2, False, "turn 4 is from human, expected gpt"),
        (entries("Q1"), False, "no answer"),
        (entries("Q1 <image>", "A"), False, "names no image file"),
        (entries("Q1", "A"), True, "no question has <image>"),
        (entries("<image> <image>", "A"), True, "turn 1 has 2 <image>"),
        (entries("<image>", "A", "<image>", "A"), True, "2 turns have <image>"),
        (entries("<image>", "an <image>"), True, "turn 2 is an answer with <image>"),
        (entries("Q", "an <image>"), False, "turn 2 is an answer with <image>"),
        (entries("Q", "A", "<image> Q"), True, "the question with <image> has no answer"),
    ],
)
def test_what_is_no_conversation_is_refused(conversation, has_image, reason):
    with pytest.raises(DataError, match=re.escape(reason)):
        parse_conversation(conversation, has_image=has_image)


@pytest.mark.parametrize(
    "turns",
    [
        [Turn("human", "Q"), Turn("gpt", "A")],
        [Turn("human", "Q", image=True), Turn("gpt", "A"), Turn("human", "Q"), Turn("gpt", "A")],
    ],
)
def test_plain_takes_one_exchange_about_an_image(byte_level_tokenizer, turns):
    with pytest.raises(DataError, match=re.escape("data.conv_template=plain takes one question with <image>")):
        encode_conversation(turns, get_template("plain"), byte_level_tokenizer, tokens_per_image=1)


class TestLength:
    turns = (Turn("human", "Q", image=True), Turn("gpt", "A1"), Turn("human", "Q2"), Turn("gpt", "A2"))

    def encoded(self, tokenizer):
        return encode_conversation(self.turns, get_template("mistral_instruct"), tokenizer, tokens_per_image=9)

    def test_what_fits_is_whole(self, byte_level_tokenizer):
        encoded = self.encoded(byte_level_tokenizer)
        sample = encoded.to_sample(len(encoded.tokens))
        assert sample.tokens.tolist() == encoded.tokens.tolist()
        assert not sample.truncated

    def test_the_end_is_cut_off_and_marked(self, byte_level_tokenizer):
        encoded = self.encoded(byte_level_tokenizer)
        sample = encoded.to_sample(len(encoded.tokens) - 1)
        assert sample.truncated
        assert sample.tokens.tolist() == encoded.tokens[:-1].tolist()
        assert sample.labels[-1] == -100
        whole = encoded.to_sample(len(encoded.tokens))
        assert sample.labels.tolist() == [*whole.labels[:-2].tolist(), -100]

    def test_nothing_left_to_learn_is_an_error(self, byte_level_tokenizer):
        encoded = self.encoded(byte_level_tokenizer)
        first = int(encoded.loss_mask.argmax())
        assert encoded.to_sample(first + 1).labels[first - 1] == encoded.tokens[first]
        with pytest.raises(DataError, match=f"no answer left in the first {first} of {len(encoded.tokens)} tokens"):
            encoded.to_sample(first)

    def test_an_image_is_never_cut(self, byte_level_tokenizer):
        turns = (Turn("human", "Q"), Turn("gpt", "A1"), *self.turns)
        encoded = encode_conversation(turns, get_template("v1"), byte_level_tokenizer, tokens_per_image=9)
        image = (encoded.tokens == -200).nonzero()[0]
        assert encoded.to_sample(image[-1] + 1).truncated
        for length in (image[0] - 5, image[0], image[0] + 4, image[-1]):
            with pytest.raises(DataError, match="the image does not fit"):
                encoded.to_sample(length)
