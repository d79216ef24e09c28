"""The evaluation of a pipeline is looked at before the first stage, and looks for images where the training did."""

import functools
import json
import operator
import re
from pathlib import Path

import pytest
from PIL import Image

from executors import Evaluate, Export, Pipeline, Stage, plan_pipeline
from executors.pipelines.changed_tool import changed_tool
from neva_model.data import Turn, encode_prompt
from neva_model.tokenizers import load_tokenizer
from neva_recipes import gpt, llava
from neva_recipes.config import RecipeError, build, config, set_field
from neva_recipes.families import image_length
from neva_recipes.prompts.templates import get_template
from tests.plan.test_files import write_tokenizer

PICTURE = b"\x89PNG\r\n\x1a\n"


def sample(image):
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cat."}]
    return {"id": image, "image": image, "conversations": turns}


@pytest.fixture
def problems(tmp_path, monkeypatch):
    """Return what is wrong with an evaluation of given records, after a training with pictures in a folder."""
    monkeypatch.chdir(tmp_path)
    for folder in ("pictures", "others"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(PICTURE)
    (tmp_path / "others" / "b.png").write_bytes(PICTURE)

    def plan(records, *, trained_in="pictures", recipe=None, words=(), exports=False, **fields):
        (tmp_path / "held_out.json").write_text(records if isinstance(records, str) else json.dumps(records))
        if recipe is None:
            recipe = llava.finetune("tiny")
            recipe.data.image_folder = trained_in
        for word in words:
            set_field(recipe, *word.split("=", 1))
        stages = [Stage("train", recipe)]
        if exports:
            stages.append(Stage("export", config(Export, model=stages[0].output)))
        stages.append(Stage("evaluate", config(Evaluate, model=stages[-1].output, data="held_out.json", **fields)))
        planned = plan_pipeline(Pipeline("p", functools.reduce(operator.rshift, stages)), runs_dir=tmp_path / "runs")
        argv = json.loads(planned.stage_jobs(tmp_path)[-1].inputs["tool.json"])["arguments"]
        folder = next((word for word in argv if word.startswith("--image-folder=")), None)
        return [line for line in planned.problems if line.startswith("evaluate: ")], folder

    return plan


def test_the_folder_to_set_is_that_of_the_stage(problems, tmp_path):
    for name in ("a.png", "/home/otto/plants/a.png"):
        (line,), _ = problems([sample(name)], image_folder=".")
        (folder,) = re.findall(r" set image_folder=(\S+)", line)
        assert "data.image_folder" not in line
    assert problems([sample("a.png")], image_folder=folder)[0] == []


def test_the_image_folder_is_that_of_the_training(problems, tmp_path):
    assert problems([sample("a.png")]) == ([], f"--image-folder={tmp_path}/pictures")
    assert problems([sample("b.png")], image_folder="others") == ([], f"--image-folder={tmp_path}/others")
    assert problems([sample("others/b.png")], trained_in=None) == ([], None)
    # Beside the questions they are found by the evaluation itself.
    assert problems([sample("others/b.png")]) == ([], None)


def test_an_export_is_asked_as_its_run_is(problems, tmp_path):
    assert problems([sample("a.png")], exports=True) == ([], f"--image-folder={tmp_path}/pictures")
    (line, *_), _ = problems([sample("a.png")], exports=True, recipe=gpt.pretrain("tiny"))
    assert "is trained on plain text: name another template" in line


@pytest.fixture
def changed(tmp_path, monkeypatch):
    """Return what becomes of the evaluation of an export that is not written yet, if a resume changes its fields."""
    monkeypatch.chdir(tmp_path)
    for name in ("pictures/a.png", "others/b.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(PICTURE)
    for name, image in (("held_out.json", "a.png"), ("beside.json", "others/b.png"), ("train.json", "a.png")):
        text = json.dumps([sample(image)])
        (tmp_path / name).write_text(text.replace("A cat.", "A dog.") if name == "train.json" else text)

    def write(recipe):
        first = Stage("train", recipe)
        export = Stage("export", config(Export, model=first.output))
        last = Stage("evaluate", config(Evaluate, model=export.output, data="held_out.json"))
        planned = plan_pipeline(Pipeline("p", first >> export >> last), runs_dir=tmp_path / "runs")
        planned.write_stages(tmp_path / "p", tmp_path / "p")

    def change(**fields):
        stage = tmp_path / "p" / "stages" / "evaluate"
        tool = changed_tool(stage, fields)
        (stage / "tool.json").write_text(tool.text)
        folder = next((word for word in json.loads(tool.text)["arguments"] if "image-folder" in word), None)
        return folder, tool.warnings

    return write, change


def test_a_resume_with_other_questions_looks_at_them_as_the_launch_does(changed, tmp_path):
    write, change = changed
    recipe = llava.finetune("tiny")
    recipe.data.data_path, recipe.data.image_folder = "train.json", "pictures"
    write(recipe)
    pictures = f"--image-folder={tmp_path}/pictures"
    assert change(batch_size="2") == (pictures, ())
    assert change(data="beside.json") == (None, ())
    assert change(data="held_out.json") == (pictures, ())
    _, (warning,) = change(model=f"{tmp_path}/p/stages/train", data="train.json")
    assert warning.line.startswith(f"data={tmp_path}/train.json: the model was trained on this file")
    assert change(data="beside.json", image_folder=".") == (f"--image-folder={tmp_path}", ())
    with pytest.raises(RecipeError, match=r"evaluate: data=.*: 1 of 1 images looked for are not in "):
        change(data="held_out.json")  # a folder that was given stays


def test_images_of_several_frames_are_told(changed, tmp_path):
    write, change = changed
    recipe = llava.finetune("tiny")
    recipe.data.data_path, recipe.data.image_folder = "train.json", "pictures"
    write(recipe)
    frames = [Image.new("RGB", (40, 20), colour) for colour in ("red", "blue")]
    frames[0].save("others/b.png", save_all=True, append_images=frames[1:])
    _, (warning,) = change(data="beside.json")
    assert warning.rule == ("images-several", "data")
    assert warning.line.startswith(f"data={tmp_path}/beside.json: 1 of 1 image looked at has several pages or frames")
    assert warning.line.endswith("; the first that was met is others/b.png")


def test_a_resume_asks_an_export_that_is_not_written_yet_as_its_run(changed):
    write, change = changed
    (Path("text.txt")).write_text("A day like any other.\n")
    recipe = gpt.pretrain("tiny")
    recipe.data.data_path = "text.txt"
    write(recipe)
    with pytest.raises(RecipeError, match=r"gpt\.pretrain is a text-only model"):
        change(conv_template="v1", image_folder="pictures")


_FILE = "the model was trained on this file, or a copy of it: its answers say nothing of new questions"
_TWO = "2 of the 3 samples are training samples too: their answers say nothing of new questions"


@pytest.mark.parametrize(
    ("trained_on", "starts_from", "said"),
    [
        ("held_out.json", None, [_FILE]),
        ("train.json", None, [_TWO]),
        ("new.json", "train.json", [_TWO]),
        ("new.json", "new.json", []),
    ],
)
def test_questions_that_were_trained_on_are_told(tmp_path, monkeypatch, trained_on, starts_from, said):
    """By the stage itself, or by the stage before it that its weights come from."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(PICTURE + name.encode())
    files = {"held_out": ("a.png", "a.png", "b.png"), "train": ("c.png", "a.png"), "new": ("c.png",)}
    for name, images in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps([sample(image) for image in images]))
    first, second = (llava.finetune("tiny") for _ in range(2))
    first.data.data_path, second.data.data_path = starts_from or trained_on, trained_on
    before = Stage("before", first)
    second.model.language.from_pretrained = before.output
    train = Stage("train", second)
    evaluate = Stage("evaluate", config(Evaluate, model=train.output, data="held_out.json"))
    planned = plan_pipeline(Pipeline("p", before >> train >> evaluate), runs_dir=tmp_path / "runs")
    told = [line for line in planned.warnings if line.startswith("evaluate: ")]
    assert [line.rpartition("held_out.json: ")[2] for line in told] == said


@pytest.mark.parametrize(
    ("records", "parts"),
    [
        ([sample("a.png"), sample("gone.png")], ["1 of 2 images looked for are not in", "pictures", "gone.png"]),
        ([sample("a.png"), {"id": 1}], ["held_out.json: sample 1: "]),
        ("[{]", ["held_out.json: "]),
        ([], ["held_out.json: holds no sample"]),
    ],
)
def test_wrong_questions_are_told_before_the_first_stage(problems, records, parts):
    (line,), _ = problems(records)
    assert line.startswith("evaluate: data=") and all(part in line for part in parts) and "\n" not in line


PICTURED = ("<image>\nWhich digit is it?", "A seven.")
SAID = ("Is it odd? " * 8, "It is.")


def talk(*said, image=None):
    turns = [{"from": "gpt" if number % 2 else "human", "value": text} for number, text in enumerate(said)]
    return {"conversations": turns} | ({} if image is None else {"image": image})


@pytest.mark.parametrize("marks", [True, False])
@pytest.mark.parametrize(
    ("record", "history"),
    [
        (talk(*PICTURED, image="a.png"), [Turn("human", "Which digit is it?", image=True)]),
        (talk(*SAID), [Turn("human", SAID[0])]),
        (
            talk(*PICTURED, *SAID, "And now?", "It is odd.", "Unanswered? " * 50, image="a.png"),
            [
                Turn("human", "Which digit is it?", image=True),
                *(Turn("gpt", PICTURED[1]), Turn("human", SAID[0]), Turn("gpt", SAID[1]), Turn("human", "And now?")),
            ],
        ),
    ],
)
def test_a_question_too_long_for_the_model_is_told_before_the_first_stage(problems, tmp_path, record, history, marks):
    """As long as the worker makes it: one position less is an error, one more is none."""
    write_tokenizer(tmp_path / "tokens")  # a token for each byte: no prompt can be longer
    tokenizer = load_tokenizer("tokens", vocab_size=None, use_im_start_end=marks)
    image_tokens = image_length(build(llava.finetune("tiny")).model.vision)
    length = len(encode_prompt(history, get_template("v1"), tokenizer, tokens_per_image=image_tokens).tokens)

    def told(positions, tokenizer):
        words = [f"data.tokenizer={tokenizer}", f"model.use_im_start_end={str(marks).lower()}"]
        words += [f"model.language.max_position_embeddings={positions}", f"data.sequence_length={positions}"]
        return problems([talk("Hi", "Hi."), record], words=words)[0]

    assert told(length + 1, "tokens") == []
    (line,) = told(length, "tokens")
    said = "held_out.json: sample 1: the prompt takes {0} tokens, image tokens included; the model's limit is {0}, "
    assert said.format(length) in line and line.endswith(" (an evaluation ends at the first bad sample)")
    assert told(length, "owner/name") == []  # nobody has counted its tokens


def test_a_template_of_which_the_tokenizer_knows_nothing_is_told(problems, tmp_path):
    write_tokenizer(tmp_path / "tokens", ["<s>", "</s>"])
    words = ["data.tokenizer=tokens"]
    assert problems([talk("Hi", "Hi.")], words=words)[0] == []
    (line,) = problems([talk("Hi", "Hi.")], words=words, conv_template="llama_3")[0]
    assert line.startswith("evaluate: conv_template=llama_3: tokenizer ") and "<|begin_of_text|>" in line


def test_questions_that_a_text_model_cannot_be_asked_are_told(problems):
    text = gpt.pretrain("tiny")
    assert problems([talk("Hi", "Hi.")], recipe=text, conv_template="v1")[0] == []
    (line,) = problems([talk("Hi", "Hi.")], recipe=text)[0]
    assert line == "evaluate: conv_template=none: gpt.pretrain is trained on plain text: name another template"
    (line,) = problems([sample("a.png")], recipe=text, conv_template="v1", image_folder="pictures")[0]
    assert "sample 0: is about the image a.png, but gpt.pretrain is a text-only model (" in line


def test_a_long_file_of_short_questions_is_looked_at_to_its_end(problems, tmp_path):
    """What surely fits is not encoded, so it takes nothing of what may be."""
    write_tokenizer(tmp_path / "tokens")
    words = ["data.tokenizer=tokens"]
    short, long = talk("Hi " * 50, "Hi."), talk("Hi " * 600, "Hi.")
    (line,) = problems([*[short] * 6000, long], words=words)[0]
    assert "held_out.json: sample 6000: the prompt takes " in line
