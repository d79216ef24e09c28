import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neva_model.inference.text_stream import TextStream

KINDS = ["sentencepiece", "byte level"]
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
TEXTS = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("ab .\n\t,é日本語🙂👨‍👩‍👧")), max_size=40)


def pieces_of(tokenizer, tokens, context=()):
    stream = TextStream(tokenizer, context=context)
    return [*(stream.push(token) for token in tokens), stream.finish()]


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(text=TEXTS)
def test_joined_pieces_of_any_text_are_that_text(tokenizers_by_kind, kind, text):
    tokenizer = tokenizers_by_kind[kind]
    tokens = tokenizer.encode_text(text, prefix=True)
    pieces = pieces_of(tokenizer, tokens)
    assert "".join(pieces) == tokenizer.decode(tokens)
    if REPLACEMENT not in text:
        assert REPLACEMENT not in "".join(pieces)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(data=st.data())
def test_joined_pieces_of_any_tokens_are_the_whole_decoded(tokenizers_by_kind, kind, data):
    tokenizer = tokenizers_by_kind[kind]
    tokens = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30))
    whole = tokenizer.decode(tokens)
    joined = "".join(pieces_of(tokenizer, tokens))
    # SentencePiece gives up a whole run of byte tokens once one of them is no character, printed ones included.
    if kind == "byte level" or REPLACEMENT not in whole:
        assert joined == whole
    else:
        assert len(joined) == len(whole)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(context=TEXTS, text=TEXTS)
def test_a_continuation_joins_its_context_without_a_seam(tokenizers_by_kind, kind, context, text):
    tokenizer = tokenizers_by_kind[kind]
    before = tokenizer.encode_text(context, prefix=True)
    after = tokenizer.encode_text(text)
    joined = "".join(pieces_of(tokenizer, after, before))
    assert tokenizer.decode(before) + joined == tokenizer.decode(before + after)


def test_a_character_of_several_tokens_comes_whole(tokenizers_by_kind):
    tokenizer = tokenizers_by_kind["sentencepiece"]
    tokens = tokenizer.encode_text("a 🙂 b", prefix=True)
    assert tokenizer.pieces(tokens)[-6:-1] == ["<0xF0>", "<0x9F>", "<0x99>", "<0x82>", "▁"], "the oracle of this test"
    assert [piece for piece in pieces_of(tokenizer, tokens) if piece] == ["a", " ", "🙂", " ", "b"]


def test_a_first_word_loses_its_space_and_later_words_keep_it(tokenizers_by_kind):
    tokenizer = tokenizers_by_kind["sentencepiece"]
    tokens = tokenizer.encode_text("odd even", prefix=True)
    assert "".join(pieces_of(tokenizer, tokens)) == "odd even"
    context = tokenizer.encode_text("is odd", prefix=True)
    assert "".join(pieces_of(tokenizer, tokenizer.encode_text(" or even"), context)) == " or even"


def test_half_a_character_at_the_end_is_shown_as_replaced(tokenizers_by_kind):
    tokenizer = tokenizers_by_kind["byte level"]
    tokens = tokenizer.encode_text("x日")[:-1]
    pieces = pieces_of(tokenizer, tokens)
    assert "".join(pieces[:-1]) == "x"
    assert pieces[-1] == REPLACEMENT


def until_end(stream, tokens):
    pieces = []
    for token in tokens:
        pieces.append(stream.push(token))
        if stream.ended:
            return pieces
    return [*pieces, stream.finish()]


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(text=TEXTS, stop=st.text("ab .\n", min_size=1, max_size=3))
def test_a_stop_string_ends_the_answer_before_it(tokenizers_by_kind, kind, text, stop):
    tokenizer = tokenizers_by_kind[kind]
    tokens = tokenizer.encode_text(text)
    whole = tokenizer.decode(tokens)
    stream = TextStream(tokenizer, stop_strings=(stop,))
    assert "".join(until_end(stream, tokens)) == whole.split(stop)[0]
    assert stream.ended == (stop in whole)


def test_a_stop_string_in_the_context_does_not_count(tokenizers_by_kind):
    tokenizer = tokenizers_by_kind["byte level"]
    stream = TextStream(tokenizer, stop_strings=("\n",), context=tokenizer.encode_text("one\n"))
    assert "".join(until_end(stream, tokenizer.encode_text("two\nthree"))) == "two"


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_token_ends_the_answer_and_is_not_shown(tokenizers_by_kind, kind):
    tokenizer = tokenizers_by_kind[kind]
    tokens = tokenizer.encode_text("odd")
    stream = TextStream(tokenizer, stop_ids={tokenizer.eos_id})
    assert "".join(until_end(stream, [*tokens, tokenizer.eos_id, *tokens])) == "odd"
    assert stream.ended
