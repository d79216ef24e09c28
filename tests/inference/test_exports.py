"""An export is asked as its run is; other directories tell what of that they do not know."""

import dataclasses
import json

import pytest
from transformers import Qwen2Config, Qwen2ForCausalLM

from neva_model import evaluation
from neva_model.checkpoints import export
from neva_model.inference import chat
from neva_recipes.storage.exports import DIGESTS_FILE
from tests.byte_level_tokenizers import train_byte_level
from tests.inference.tiny_models import save_run

QUESTION = "Which digit is this?"


@pytest.fixture
def make_pair(llava, tmp_path):
    """Return a run trained with given data fields, and its export."""

    def make(name, **fields):
        recipe = dataclasses.replace(llava.recipe, data=dataclasses.replace(llava.recipe.data, **fields))
        run = save_run(llava.model, recipe, tmp_path / name)
        assert export.main([str(run), str(tmp_path / f"{name}-exported")]) == 0
        return run, tmp_path / f"{name}-exported"

    return make


@pytest.fixture
def evaluate(capsys):
    """Return the answers to a data file, the report, and what was said on standard output and as notes."""

    def ask(model, data, *arguments):
        capsys.readouterr()
        assert evaluation.main([str(model), f"--data={data}", *arguments]) == 0
        out, err = capsys.readouterr()
        lines = (model / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
        report = json.loads((model / "evaluation.json").read_text(encoding="utf-8"))
        notes = [line for line in err.splitlines() if line.startswith("note: ")]
        return [json.loads(line)["answer"] for line in lines], report, out.splitlines(), notes

    return ask


@pytest.fixture
def say(capsys):
    """Return what a model says to a question, and the notes before."""

    def ask(model, *arguments):
        capsys.readouterr()
        assert chat.main([str(model), f"--prompt={QUESTION}", "--max-new-tokens=12", *arguments]) == 0
        out, err = capsys.readouterr()
        return out, [line for line in err.splitlines() if line.startswith("note: ")]

    return ask


def write_questions(path, answers):
    samples = [
        {
            "image": f"picture {number}.png",
            "conversations": [
                {"from": "human", "value": f"<image>\n{QUESTION}"},
                {"from": "gpt", "value": answer},
            ],
        }
        for number, answer in enumerate(answers)
    ]
    path.write_text(json.dumps(samples), encoding="utf-8")
    return path


def forget(directory):
    """Make an export one of an older version."""
    record = json.loads((directory / DIGESTS_FILE).read_text())
    del record["training"]
    (directory / DIGESTS_FILE).write_text(json.dumps(record))


def test_an_export_is_asked_in_the_template_of_its_run(make_pair, evaluate, say, pictures, tmp_path):
    run, exported = make_pair("taught", conv_template="mistral_instruct", image_folder=str(pictures))
    asked = evaluate(run, write_questions(tmp_path / "questions.json", ["?"] * 5))[0]
    data = write_questions(tmp_path / "held.json", asked)
    where = f"note: the images are looked for in {pictures}, as in the training; --image-folder names another folder"
    checkpoint = run / "checkpoints" / "step-00000007"
    for model, line in (
        (run, f"evaluating {checkpoint}"),
        (exported, f"evaluating {exported}, exported from {checkpoint}"),
    ):
        _, report, out, notes = evaluate(model, data)
        assert (report["accuracy"], report["conv_template"]) == (1.0, "mistral_instruct")
        assert report["training"] == {"conv_template": "mistral_instruct", "image_folder": str(pictures)}
        assert (out[0], notes) == (line, [where])
    in_another = [evaluate(model, data, "--conv-template=v1") for model in (run, exported)]
    assert in_another[0][0] == in_another[1][0] != asked
    for model, (_, report, _, notes) in zip((checkpoint, exported), in_another, strict=True):
        assert report["accuracy"] < 1 and report["training"]["conv_template"] == "mistral_instruct"
        told = f"note: {model} was trained with the template mistral_instruct: answers to questions in v1 may be poor"
        assert notes == [told, where]
    assert say(exported) == say(run)
    # One of an older version is known by its chat template; without that v1 is taken, which is told.
    forget(exported)
    assert evaluate(exported, data)[1]["accuracy"] == 1
    (exported / "chat_template.jinja").unlink()
    _, report, _, (note, _) = evaluate(exported, data)
    assert report["training"] is None and report["conv_template"] == "v1" and report["accuracy"] < 1
    assert note.startswith(f"note: {exported} does not tell which template it was trained with: v1 is taken; --conv")
    assert evaluate(exported, data, "--conv-template=mistral_instruct")[3] == [where]


def test_an_export_of_stage_one_says_so(make_pair, say, pictures):
    run, exported = make_pair("stage-1", conv_template="plain")
    image = f"--image={pictures}/picture 1.png"
    (answer, (note,)), (own, (its,)) = say(exported, image), say(run, image)
    assert answer == own and "as in stage 1" in note
    assert its.replace(str(run / "checkpoints" / "step-00000007"), str(exported)) == note


def test_an_export_of_a_text_model_continues_text(llama_run, llama_directory, say, tmp_path):
    exported = tmp_path / "exported"
    assert export.main([str(llama_run), str(exported)]) == 0
    continued = say(llama_run)
    assert continued[1] == [] and say(exported) == continued
    forget(exported)
    assert say(exported) == continued
    # Whether another Llama answers or continues text, its directory does not tell.
    answer, (note,) = say(llama_directory)
    assert answer != continued[0] and note.endswith("and --conv-template=plain continues text")
    assert say(llama_directory, "--conv-template=plain") == continued


def test_images_are_found_beside_the_questions_or_where_the_training_had_them(make_pair, evaluate, pictures, tmp_path):
    run, _ = make_pair("trained", image_folder=str(pictures))
    beside = write_questions(pictures / "beside.json", ["?"])
    try:
        _, report, _, notes = evaluate(run, beside)
    finally:
        beside.unlink()
    assert (report["image_folder"], notes) == (None, [])
    away = write_questions(tmp_path / "away.json", ["?"])
    _, report, _, notes = evaluate(run, away)
    assert report["image_folder"] == str(pictures) and len(notes) == 1
    # It is the same evaluation, whoever names the folder.
    kept = sorted((run / "evaluations").iterdir())
    assert evaluate(run, away, f"--image-folder={pictures}")[3] == []
    assert sorted((run / "evaluations").iterdir()) == kept


def test_a_model_of_a_family_with_one_template_is_asked_in_it(tmp_path, say):
    """As `model.language=DIR` trains it; a tokenizer without the tokens of v1 would refuse that one."""
    folder = tmp_path / "qwen"
    backend = train_byte_level(folder, [QUESTION] * 9, 300, ["<|im_start|>", "<|im_end|>"], eos_token="<|im_end|>")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = Qwen2ForCausalLM(Qwen2Config(**sizes, num_key_value_heads=2, vocab_size=backend.get_vocab_size()))
    model.save_pretrained(folder)
    _, notes = say(folder, "--max-new-tokens=2")
    assert notes[0].startswith(f"note: {folder} does not tell which template it was trained with: chatml is taken; ")
