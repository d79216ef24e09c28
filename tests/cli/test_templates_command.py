"""`nemo-run templates`: every template is listed, and shown with its loss."""

import json
import typing

import pytest
from transformers import AutoTokenizer

from neva_recipes.cli.commands import templates
from neva_recipes.cli.main import main
from neva_recipes.config import ConvTemplate
from tests.tokenizers.texts import byte_level_directory, english_lines, llama_directory, train_model

VICUNA = "<s>USER: <image>\nWhat is shown? ASSISTANT:[[A seven.</s>]]\n<s>USER: Is it odd? ASSISTANT:[[Yes.</s>]]\n"


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """A tokenizer of Llama's kind, and one of Qwen's."""
    home = tmp_path_factory.mktemp("tokenizers")
    model = train_model(home / "a.model", english_lines()[:300], 500)
    specials = ("<|im_start|>", "<|im_end|>")
    return llama_directory(home / "llama", model), byte_level_directory(
        home / "qwen", english_lines()[:100], 300, specials, split=r"\s+"
    )


def test_all_are_listed_with_their_origin_in_a_line_each(capsys):
    assert main(["templates"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(typing.get_args(ConvTemplate))
    assert all(len(line) <= 80 and len(line.split()) > 1 for line in lines)
    assert "xtuner_vicuna        XTuner vicuna" in lines


def test_an_example_with_its_loss(capsys):
    assert main(["templates", "xtuner_vicuna"]) == 0
    head, _, example = capsys.readouterr().out.partition("\n\n")
    assert head.startswith("xtuner_vicuna: XTuner vicuna\n")
    assert example == VICUNA


def test_a_template_of_one_exchange(capsys):
    assert main(["templates", "plain"]) == 0
    assert capsys.readouterr().out.endswith("\n\nBOS<image>[[A seven.\n]]\n")


def test_loss_is_coloured_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(templates, "shows_colour", lambda: True)
    assert main(["templates", "xtuner_vicuna"]) == 0
    out = capsys.readouterr().out
    assert "[[" not in out and "ASSISTANT:\x1b[30;42mA seven.</s>\x1b[0m\n<s>" in out


@pytest.mark.parametrize("name", ["xtuner_vicuna", "llamafactory_vicuna"])
def test_the_tokens_of_a_tokenizer(tokenizers, name, capsys):
    hf = AutoTokenizer.from_pretrained(tokenizers[0])
    assert main(["templates", name, "--tokenizer", str(tokenizers[0])]) == 0
    example = capsys.readouterr().out.partition("\n\n")[2]
    answer = [*hf.tokenize("A seven."), "</s>"]
    assert f" [[{' '.join(answer)}]] " in " ".join(example.split())
    assert all(len(line) <= 84 for line in example.splitlines())
    assert main(["templates", name, "--tokenizer", str(tokenizers[0]), "--format=json"]) == 0
    tokens = json.loads(capsys.readouterr().out)["tokens"]
    learnt = [token["token"] for token in tokens if token["loss"]]
    assert learnt == [*answer, *hf.tokenize("Yes."), "</s>"]
    assert all(hf.convert_tokens_to_ids(one["token"]) == one["id"] for one in tokens if one["token"] != "<image>")


def test_byte_level_tokens(tokenizers, capsys):
    hf = AutoTokenizer.from_pretrained(tokenizers[1])
    assert main(["templates", "chatml", "--tokenizer", str(tokenizers[1]), "--format=json"]) == 0
    tokens = json.loads(capsys.readouterr().out)["tokens"]
    text = hf.decode([one["id"] for one in tokens if one["id"] >= 0])
    assert "<|im_start|>assistant\nA seven.<|im_end|>\n<|im_start|>user\nIs it odd?<|im_end|>" in text


def test_json(capsys):
    assert main(["templates", "--format=json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)["templates"]}
    assert listed.keys() == set(typing.get_args(ConvTemplate))
    assert (listed["gemma"]["takes_system"], listed["gemma"]["stop"]) == (False, "<end_of_turn>")
    assert main(["templates", "xtuner_vicuna", "--format=json"]) == 0
    parts = json.loads(capsys.readouterr().out)["example"]
    assert "".join(f"[[{one['text']}]]" if one["loss"] else one["text"] for one in parts) + "\n" == VICUNA


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["vicuna"], "vicuna: no such template"),
        (["chatmk"], "chatmk: no such template (did you mean chatml?); nemo-run templates lists all"),
        (["--tokenizer", "x"], "--tokenizer shows the tokens of one template: name it, such as nemo-run templates v1"),
        (["v1", "--tokenizer", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_told_in_a_line(words, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["templates", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and told in error


def test_a_tokenizer_without_a_token_of_the_template(tokenizers, capsys):
    assert main(["templates", "internlm2_chat", "--tokenizer", str(tokenizers[0])]) == 2
    assert capsys.readouterr().err.endswith("has no special token <|im_start|>\n")
