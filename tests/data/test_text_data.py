"""Documents become one stream of tokens in which every token is predicted once."""

import fcntl
import json
import pickle
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neva_model.data.text import TextDataset
from neva_recipes.config import DataError, RunError

DOCUMENTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=8).filter(
    lambda documents: any(document.strip() for document in documents)
)


@settings(max_examples=60, deadline=None)
@given(documents=DOCUMENTS, sequence_length=st.integers(1, 40))
def test_windows_predict_every_token_once(tmp_path_factory, sentencepiece_tokenizer, documents, sequence_length):
    # A folder for each: what was made of another file of this name, size and tick of the clock would be taken.
    folder = tmp_path_factory.mktemp("documents")
    path = folder / "documents.jsonl"
    path.write_text("\n".join(json.dumps({"text": document}) for document in documents))
    dataset = TextDataset(str(path), sequence_length, sentencepiece_tokenizer, folder)
    stream = []
    for document in documents:
        if document.strip():
            stream += [1, *sentencepiece_tokenizer.encode_text(document, prefix=True), 2]
    windows = [dataset.load(position) for position in range(len(dataset))]
    assert [token for window in windows for token in window.tokens.tolist()] == stream[:-1]
    assert [label for window in windows for label in window.labels.tolist()] == stream[1:]
    assert all(len(window.tokens) == len(window.labels) == sequence_length for window in windows[:-1])
    assert 1 <= len(windows[-1].tokens) <= sequence_length


def test_a_text_file_has_a_document_a_line(tmp_path, byte_level_tokenizer):
    path = tmp_path / "text.txt"
    path.write_bytes("\ufeffone </s> two\r\n\n  \n\u00e9 three".encode())
    dataset = TextDataset(str(path), 1000, byte_level_tokenizer, tmp_path / "cache")
    sample = dataset.load(0)
    tokens = [*sample.tokens.tolist(), sample.labels.tolist()[-1]]
    special = byte_level_tokenizer.special_id
    ends = [position for position, token in enumerate(tokens) if token == special("</s>")]
    assert byte_level_tokenizer.decode(tokens[1 : ends[0]]) == "one </s> two"
    assert tokens[0] == tokens[ends[0] + 1] == special("<s>")
    assert byte_level_tokenizer.decode(tokens[ends[0] + 2 : ends[1]]) == "\u00e9 three"
    assert ends[1] == len(tokens) - 1


def test_tokens_are_written_once_and_again_when_something_changes(
    tmp_path, byte_level_tokenizer, sentencepiece_tokenizer
):
    path = tmp_path / "text.txt"
    path.write_text("What digit is shown?")
    for _ in range(2):
        first = TextDataset(str(path), 8, byte_level_tokenizer, tmp_path / "cache")
        assert len(list((tmp_path / "cache").glob("*.uint16"))) == 1
    TextDataset(str(path), 8, sentencepiece_tokenizer, tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.uint16"))) == 2
    path.write_text("What digit is shown? It is a seven.")
    assert len(TextDataset(str(path), 2, byte_level_tokenizer, tmp_path / "cache")) > len(first)


def test_a_dataset_travels_to_a_spawned_worker_without_its_tokens(tmp_path, byte_level_tokenizer):
    path = tmp_path / "text.txt"
    path.write_text("What digit is shown?\n" * 20_000)
    dataset = TextDataset(str(path), 8, byte_level_tokenizer, tmp_path / "cache")
    pickled = pickle.dumps(dataset)
    assert len(pickled) < (tmp_path / "cache").glob("*.uint16").__next__().stat().st_size / 2
    assert torch.equal(pickle.loads(pickled).load(3).tokens, dataset.load(3).tokens)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"\n \n", "holds no text"),
        ("a.txt", b"fine\n\xff\n", "line 2 is not UTF-8"),
        ("a.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', 'document 2 has no "text"'),
        ("a.jsonl", b'{"text": "a"}\n{"text": 5}\n', 'document 2 has no "text"'),
        ("a.jsonl", b'{"text": "a"}\n{"text": NaN}\n', "a string: it is NaN, which an empty cell of a table becomes"),
        ("a.jsonl", b'{"text": "a"}\n{"text": null}\n', "becomes; write the text, or leave the line out"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "b"\n', "line 2 is not valid JSON"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "document 1: text holds"),
        ("a.jsonl", b'{"messages": []}\n', 'no "text" that is a string; it has messages, on which llava.pretrain and'),
        ("a.jsonl", b'{"text": 1, "messages": "a"}\n', 'document 1 has no "text" that is a string'),
        ("a.json", b'[{"conversations": []}]', "is JSON, expected text: write JSONL with a"),
        (
            "a.txt",
            "fine\n\u00e9t\u00e9".encode("latin-1"),
            "continuation byte: save the file as UTF-8 (iconv -f LATIN1",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_place(tmp_path, byte_level_tokenizer, name, content, reason):
    (tmp_path / name).write_bytes(content)
    for _ in range(2):
        with pytest.raises(DataError, match=re.escape(reason)) as raised:
            TextDataset(str(tmp_path / name), 8, byte_level_tokenizer, tmp_path / "cache")
        assert str(tmp_path / name) in str(raised.value)
        assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {".lock"}


def test_json_that_is_meant_as_text_is_taken_by_another_ending(tmp_path, byte_level_tokenizer):
    (tmp_path / "code.json").write_text('["What digit?"]\n')
    with pytest.raises(DataError, match=r"with the ending \.txt the lines are trained on as they are"):
        TextDataset(str(tmp_path / "code.json"), 8, byte_level_tokenizer, tmp_path / "cache")
    (tmp_path / "code.json").rename(tmp_path / "code.txt")
    dataset = TextDataset(str(tmp_path / "code.txt"), 64, byte_level_tokenizer, tmp_path / "cache")
    assert '["What digit?"]' in byte_level_tokenizer.decode(dataset.load(0).tokens.tolist())


def test_a_missing_file_is_named(tmp_path, byte_level_tokenizer):
    with pytest.raises(DataError, match=r"nothing\.txt: cannot be read: No such file"):
        TextDataset(str(tmp_path / "nothing.txt"), 8, byte_level_tokenizer, tmp_path / "cache")


def test_a_run_directory_that_cannot_be_written_to_is_named(tmp_path, byte_level_tokenizer):
    (tmp_path / "a.txt").write_text("What digit?")
    (tmp_path / "taken").touch()
    with pytest.raises(RunError, match="taken: cannot be written to"):
        TextDataset(str(tmp_path / "a.txt"), 8, byte_level_tokenizer, tmp_path / "taken")


def test_damaged_and_unfinished_files_of_the_cache(tmp_path, byte_level_tokenizer, capfd):
    path, cache = tmp_path / "text.txt", tmp_path / "cache"
    path.write_text("What digit is shown?")
    whole = TextDataset(str(path), 8, byte_level_tokenizer, cache).load(0)
    (tokens,) = cache.glob("*.uint16")
    names = {entry.name for entry in cache.iterdir()}
    data = bytearray(tokens.read_bytes())
    data[2] ^= 1
    tokens.write_bytes(data)
    # They belong to two killed processes and to one that is still at it.
    (cache / f"{tokens.stem}.4.unfinished").write_bytes(b"x")
    (cache / "0123456789abcdef.4.unfinished").write_bytes(b"x")
    (cache / "fedcba9876543210.4.unfinished").write_bytes(b"x")
    with (cache / "fedcba9876543210.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        again = TextDataset(str(path), 8, byte_level_tokenizer, cache).load(0)
    assert torch.equal(again.tokens, whole.tokens)
    assert f"{tokens}: is damaged, and made anew" in capfd.readouterr().out
    added = {entry.name for entry in cache.iterdir()} - names
    assert added == {"fedcba9876543210.4.unfinished", "fedcba9876543210.lock"}
