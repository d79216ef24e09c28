"""`nemo-run data preview` marks exactly the tokens that the worker's samples have as labels, and shows their text."""

import json
import re
import sys

import pytest
from PIL import Image

from neva_model.data.encoding import encode_conversation
from neva_model.tokenizers import load_tokenizer
from neva_recipes.cli.main import main
from neva_recipes.data_tools.preview.page import samples_to_html
from neva_recipes.data_tools.preview.samples import seen_samples
from neva_recipes.data_tools.preview.text import samples_to_text
from neva_recipes.plan.tokenizers.tokenizer import read_tokenizer
from neva_recipes.prompts.samples import read_sample
from neva_recipes.prompts.templates import TEMPLATES, get_template
from tests.cli.command import in_terminal
from tests.data_tools.samples import sample
from tests.pages import Page, measured, needs_browser
from tests.tokenizers.texts import byte_level_directory, english_lines, train_model

SPECIALS = (*dict.fromkeys(["<s>", "</s>", *(token for each in TEMPLATES.values() for token in each.special_tokens)]),)
ANSWER = "It returns the value, naïve 日本 \U0001f600.\nAnd </s> is text."


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    return train_model(tmp_path_factory.mktemp("pieces") / "english.model", english_lines())


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bytes") / "english"
    return byte_level_directory(folder, english_lines(), 700, SPECIALS, eos_token="</s>", bos_token="<s>")


def records():
    long = sample(2, "Who?", "Nobody at all.")
    long["conversations"] += [
        {"from": "human", "value": "Where?"},
        {"from": "gpt", "value": ""},
        {"from": "human", "value": "  When?\n"},
        {"from": "gpt", "value": "Then, " * 40},
    ]
    return [sample("a", "<image>\nWhat does it return?", ANSWER, image="1.jpg"), long, sample(3, answer="")]


def seen(path, tokenizer, template="v1", **options):
    values = {"template": template, "tokens_per_image": 7, "sequence_length": 2048, **options}
    return seen_samples(path, 8, tokenizer=read_tokenizer(tokenizer), **values)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("sequence_length", [2048, 150])
def test_what_is_marked_are_the_labels_of_the_worker(template, sequence_length, byte_level, write):
    """A label stands one place before the token that it names."""
    there = records()[:1] if template == "plain" else records()[:2]
    path = write(*there)
    tokenizer = load_tokenizer(str(byte_level), vocab_size=None)
    shown = seen(path, byte_level, template, sequence_length=sequence_length)
    for record, found in zip(there, shown, strict=True):
        turns, system, _ = read_sample(record, get_template(template))
        encoded = encode_conversation(turns, get_template(template), tokenizer, tokens_per_image=7, system=system)
        try:
            made = encoded.to_sample(sequence_length)
        except ValueError as error:
            assert found.problem == str(error)
            continue
        ids = [each for unit in found.units for each in unit.ids]
        assert ids == made.tokens.tolist()
        marked = [each if unit.is_learnt else -100 for unit in found.units for each in unit.ids]
        assert marked == [-100, *made.labels.tolist()[:-1]]
        assert found.cut == len(encoded.tokens) - len(ids)


@pytest.mark.parametrize(("kind", "own"), [("pieces", " "), ("byte_level", "")])
def test_the_text_is_that_of_the_prompt(kind, own, request, write):
    """Golden text of the template v1; SentencePiece puts a space of its own where a text begins."""
    tokenizer = request.getfixturevalue(kind)
    path = write(*records())
    first, second, third = samples_to_text(seen(path, tokenizer), has_colour=False).split("\nsample ")
    assert re.match(r"sample 0 \(id a\): \d+ tokens, \d+ with loss\n", first)
    assert first.split("\n", 1)[1] == (
        f"<s>{own}A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        f"detailed, and polite answers to the user's questions. USER: <image: 7 tokens>{own}\nWhat does it return? "
        f"ASSISTANT:[[ {ANSWER}</s>]]\n"
    )
    then = "Then, " * 40
    assert (
        "USER: Who? ASSISTANT:[[ Nobody at all.</s>]]USER: Where? ASSISTANT: </s>"
        f"USER:   When?\n ASSISTANT:[[ {then}</s>]]\n"
    ) in second.replace(f"</s>{own}USER", "</s>USER")
    assert third == "2 (id 3) is not used: no answer: nothing to learn from\n"


def test_a_terminal_gets_colours_and_nothing_else_that_steers_it(pieces, tmp_path, write):
    path = write(sample(0, "What\x1b[2J?", "This\u202e."))
    command = f"{sys.executable} -m neva_recipes data preview {path} --tokenizer {pieces} -n 1"
    shown = in_terminal(command)
    coloured = re.findall(r"\x1b\[30;42m(.*?)\x1b\[0m", shown)
    assert coloured == [" This\\u202e.</s>"]
    assert "\\x1b[2J" in shown and "\x1b[2J" not in shown and "[[" not in shown
    assert "[[ This\\u202e.</s>]]" in in_terminal(f"{command} | cat")


def image_folder(tmp_path):
    Image.new("RGB", (900, 300), "red").save(tmp_path / "1.jpg")
    return tmp_path


def test_the_page_has_the_picture_and_marks_what_carries_loss(pieces, tmp_path, write):
    hostile = sample(1, "<script>alert(1)</script> " + "w" * 300, "</mark><img src=x>")
    path = write(*records(), hostile)
    shown = seen(path, pieces, image_folder=image_folder(tmp_path))
    text = samples_to_html(shown, "below")
    page = Page(text)
    assert "script" not in page.tags and page.tags.count("img") == 1
    (source,) = [value for name, value in page.attributes if name == "src"]
    assert source.startswith("data:image/jpeg;base64,")
    assert page.tags.count("mark") == sum(unit.is_learnt for one in shown for unit in one.units)
    marked = "".join(re.findall(r"<mark[^>]*>(.*?)</mark>", text, re.DOTALL))
    assert marked.startswith(" It returns the value, na&#239;ve ") and "What" not in marked


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser_nothing_sticks_out(width, pieces, tmp_path, write):
    path = write(*records(), sample(1, "w" * 900, "x" * 900))
    text = samples_to_html(seen(path, pieces, image_folder=image_folder(tmp_path)), "b" * 300)
    found = measured(text, width, tmp_path)
    assert found["inner"] == width and found["scroll"] <= width and (found["out"], found["small"]) == (0, 0)


def test_files_are_written_and_an_image_that_is_missing_is_told(pieces, tmp_path, write, capsys):
    path = write(*records(), sample(1, "<image>\nWhat?", image="2.jpg"))
    folder = image_folder(tmp_path)
    words = ["data", "preview", str(path), "--tokenizer", str(pieces), "--image-folder", str(folder)]
    assert main([*words, "--html", str(tmp_path / "a.html"), "--png", str(tmp_path / "a.png")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"image {folder}/1.jpg" in out
    assert "sample 3 (id 1) is not used: image file " in out and "does not exist" in out
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        counted = sum(number for number, colour in image.getcolors(2**24) if colour == (0xC9, 0xEF, 0xD6))
    assert image.format == "PNG" and counted > 9 * 20 * 10, "what carries loss has a ground of its own"
    assert main([*words, "--html", str(tmp_path / "a.html")]) == 2
    assert "a.html: exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.json"], "--tokenizer is missing"),
        (["none.json", "--tokenizer", "T"], "none.json: cannot be read: No such file or directory"),
        (["empty.json", "--tokenizer", "T"], "empty.json: is empty"),
        (["text.json", "--tokenizer", "T"], "expected a JSON array of samples"),
        (["none.jsonl", "--tokenizer", "T"], "none.jsonl: cannot be read"),
        (["a.json", "--tokenizer", "none.model"], "tokenizer none.model does not exist"),
        (["a.json", "--tokenizer", "T", "--template", "llama_3"], "has no special token <|begin_of_text|>"),
        (["a.json", "--tokenizer", "T", "-n", "0"], "-n"),
        (["a.json", "--tokenizer", "T", "-n", "101"], "-n 101: expected at most 100"),
        (["a.json", "--tokenizer", "T", "--image-folder", "none"], "--image-folder none: does not exist"),
    ],
)
def test_words_that_cannot_be_used(words, message, pieces, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps([sample()]))
    (tmp_path / "empty.json").write_text("")
    (tmp_path / "text.json").write_text("What?")
    assert main(["data", "preview", *(str(pieces) if word == "T" else word for word in words)]) == 2
    told = capsys.readouterr()
    assert message in told.err and told.err.count("\n") == 1 and told.out == ""
