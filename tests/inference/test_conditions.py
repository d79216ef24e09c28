"""Whether a model is asked as it was trained: its template, its folder of images, and its tokenizer where it is now."""

import dataclasses
import json
import shlex
import shutil

import pytest

from executors.runs.results import read_evaluations
from neva_model import evaluation
from neva_model.checkpoints import export
from neva_model.inference import chat
from neva_recipes.config import UserError
from tests.inference import tiny_models
from tests.inference.test_evaluation import conversation, write_data
from tests.plan.test_files import write_tokenizer


@pytest.fixture
def run(llava, tmp_path):
    """A function that writes the run of a LLaVA, trained with some fields of its data."""

    def write(**fields):
        recipe = dataclasses.replace(llava.recipe, data=dataclasses.replace(llava.recipe.data, **fields))
        return tiny_models.save_run(llava.model, recipe, tmp_path / "run", llava.tokenizer)

    return write


@pytest.fixture
def data(pictures, tmp_path):
    sample = {"image": "picture 0.png", "conversations": conversation(("What?", "A cat."))}
    return write_data(tmp_path / "held_out.json", [sample])


def notes(capsys):
    err = " ".join(capsys.readouterr().err.split())
    return [part.partition(" note: ")[0] for part in err.split("note: ")[1:]]


@pytest.mark.parametrize(
    ("trained", "asked", "told"),
    [
        ("v1", (), None),
        ("v1", ("--conv-template=v1",), None),
        (
            "v1",
            ("--conv-template=mistral_instruct",),
            "was trained with the template v1: answers to questions in mistral_instruct",
        ),
        ("plain", (), "was trained with the template plain, as in stage 1: it describes an image, whatever it is"),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "chat"])
def test_questions_that_do_not_reach_a_model_as_in_training(command, trained, asked, told, run, data, pictures, capsys):
    path = run(conv_template=trained)
    if command == "evaluate":
        evaluation.main([str(path), f"--data={data}", f"--image-folder={pictures}", *asked])
    else:
        chat.main([str(path), f"--image={pictures}/picture 0.png", "--prompt=What?", "--max-new-tokens=2", *asked])
    found = notes(capsys)
    assert len(found) == (told is not None)
    assert told is None or told in found[0]


def test_a_report_says_what_was_otherwise_than_in_training(run, data, pictures, tmp_path):
    path = run(image_folder=str(pictures))
    others = tmp_path / "others"
    shutil.copytree(pictures, others)

    def evaluate(folder, *more):
        evaluation.main([str(path), f"--data={data}", f"--image-folder={folder}", *more])
        return list(read_evaluations(path))[-1]

    first = evaluate(pictures)
    assert (first.other_template, first.other_image_folder) == (None, None)
    assert first.summary() == f"{first.accuracy:.2%} of 1 right: held_out.json, step-00000007"
    second = evaluate(pictures, "--conv-template=mistral_instruct")
    assert second.questions_text == "held_out.json, template mistral_instruct"
    third = evaluate(others)
    assert third.questions_text == f"held_out.json, images of {others}"
    assert not any(
        one.has_data_of(other) for one in (first, second, third) for other in (second, third, first) if one != other
    )


def test_a_stage_of_a_pipeline_keeps_its_own_report(run, data, pictures, tmp_path, capsys):
    path, stage = run(), tmp_path / "pipe" / "stages" / "evaluate"
    stage.mkdir(parents=True)
    (tmp_path / "pipe" / "pipeline.json").write_text("{}")
    evaluation.main([str(path), f"--data={data}", f"--image-folder={pictures}", f"--output={stage}/predictions.jsonl"])
    assert (stage / "evaluation.json").read_text() == (path / "evaluation.json").read_text()
    what, *table, correct, answers = capsys.readouterr().out.splitlines()
    assert what.startswith("evaluating ") and answers == f"answers: {stage}/predictions.jsonl"
    assert {len(f"[evaluate] {line}") for line in table} == {80} and len(f"[evaluate] {correct}") <= 80
    # Whoever names a file of answers gets that file.
    (tmp_path / "answers").mkdir()
    evaluation.main([str(path), f"--data={data}", f"--image-folder={pictures}", f"--output={tmp_path}/answers/a.jsonl"])
    assert [file.name for file in (tmp_path / "answers").iterdir()] == ["a.jsonl"]


def test_a_tokenizer_that_has_moved(run, llava_directory, data, pictures, tmp_path):
    gone, moved = tmp_path / "gone" / "tok", tmp_path / "moved"
    shutil.copytree(llava_directory, moved)
    path = run(tokenizer=str(gone))
    calls = {
        "chat": lambda *more: chat.main([str(path), "--prompt=What?", "--max-new-tokens=2", *more]),
        "evaluate": lambda *more: evaluation.main([str(path), f"--data={data}", f"--image-folder={pictures}", *more]),
        "export": lambda *more: export.main([str(path), str(tmp_path / "exported"), *more]),
    }
    for call in calls.values():
        with pytest.raises(UserError) as caught:
            call()
        assert str(caught.value) == (
            f"tokenizer {gone} does not exist: expected a directory, a .model file, or a hub name, owner/name; "
            f"data.tokenizer of {path}/checkpoints/step-00000007 names it: --tokenizer PATH says where it is"
        )
        assert call(f"--tokenizer={moved}") == 0
    assert json.loads((tmp_path / "exported" / "tokenizer_config.json").read_text())


def test_another_tokenizer_is_refused_with_the_flag_that_these_commands_take(run, llava_directory, tmp_path):
    path = run(tokenizer=str(llava_directory))
    write_tokenizer(tmp_path / "other")
    for call in (chat.main, export.main):
        words = ["--prompt=What?"] if call is chat.main else [str(tmp_path / "exported")]
        with pytest.raises(UserError) as caught:
            call([str(path), *words, f"--tokenizer={tmp_path}/other"])
        assert str(caught.value) == (
            f"{path}/checkpoints/step-00000007: was trained with another vocabulary than that of {tmp_path}/other: "
            f"give --tokenizer {shlex.quote(str(llava_directory))}"
        )


def test_a_directory_has_its_own_tokenizer(llava_directory):
    with pytest.raises(UserError, match=r"^--tokenizer=tok: .* is a Hugging Face directory, which has its own$"):
        chat.main([str(llava_directory), "--prompt=What?", "--tokenizer=tok"])
