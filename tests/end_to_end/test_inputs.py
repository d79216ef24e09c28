"""Files that a recipe names are looked for before anything is written: from the command line, Python and a file."""

import json
import shlex

import pytest

import executors
from neva_recipes import llava
from neva_recipes.cli.main import main
from neva_recipes.config import RecipeError, load_recipe, recipe_to_yaml, set_field
from tests.data.inputs import train_sentencepiece


@pytest.fixture(scope="module")
def sentencepiece_bytes():
    return train_sentencepiece(vocab_size=400)


@pytest.fixture
def folder(tmp_path, monkeypatch, sentencepiece_bytes):
    """A current directory, and a home, with a data file, a tokenizer and a folder of runs."""
    turns = [{"from": "human", "value": "Hello."}, {"from": "gpt", "value": "Hello."}]
    (tmp_path / "tokens").mkdir()
    (tmp_path / "runs/stage-1").mkdir(parents=True)
    (tmp_path / "chats.json").write_text(json.dumps([{"conversations": turns}]))
    (tmp_path / "tokens/tokenizer.model").write_bytes(sentencepiece_bytes)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


GOOD = {"data.data_path": "chats.json", "data.tokenizer": "tokens"}

MISSING = [
    ("data.data_path", "chat.json", "no such file (did you mean chats.json?)"),
    ("data.data_path", "tokens", "is a folder, expected a file; set it to the one to read"),
    ("data.data_path", "chats.json/x", "no such file; set it to the one to read"),
    ("data.data_path", "x" * 256, "no such file; set it to the one to read"),
    ("data.data_path", "~nobody-at-all/chats.json", "no such file; set it to the one to read"),
    ("data.validation_data_path", "held_out.json", "no such file; set it to the one to read"),
    ("data.image_folder", "chats.json", "is a file, expected a folder; set it to that of the images"),
    ("data.tokenizer", "tokens/tokenizer.mdl", "no such file or folder (did you mean tokens/tokenizer.model?)"),
    ("data.tokenizer", "token", "no such file or folder (did you mean tokens?)"),
    ("data.tokenizer", "/nowhere/tokens", "no such file or folder"),
    # runs/stage-1 is another run: it is not offered.
    (
        "model.projector.from_pretrained",
        "runs/stage-2",
        "no such file or folder; its first part is a folder here, so it is not looked for on the Hugging Face hub",
    ),
    (
        "model.projector.from_pretrained",
        "runs/other",
        "no such file or folder; its first part is a folder here, so it is not looked for on the Hugging Face hub",
    ),
    ("model.language.from_pretrained", "a/b/c", "no such file or folder"),
    ("model.vision.from_pretrained", "./openai/clip", "no such file or folder"),
]


@pytest.mark.parametrize(("field", "value", "answer"), MISSING)
def test_what_is_not_there(field, value, answer, folder, capfd):
    settings = {**GOOD, field: value}
    before = sorted(folder.rglob("*"))
    line = f"{field}={shlex.quote(value)}: {answer}"
    assert main(["llava.finetune", "size=tiny", *(f"{name}={text}" for name, text in settings.items())]) == 2
    assert capfd.readouterr() == ("", f"error: {line}\n")
    recipe = llava.finetune("tiny")
    for name, text in settings.items():
        set_field(recipe, name, text)
    with pytest.raises(RecipeError) as raised:
        executors.run(recipe)
    assert str(raised.value) == line
    assert executors.plan_job(recipe).missing == (line,)
    assert sorted(folder.rglob("*")) == before
    (folder / "saved.yaml").write_text(recipe_to_yaml(recipe))
    assert main(["saved.yaml"]) == 2
    assert capfd.readouterr() == ("", f"error: {line}\n")


def test_a_resume_looks_for_what_it_is_given(folder, capfd):
    recipe = llava.finetune("tiny")
    for name, text in GOOD.items():
        set_field(recipe, name, text)
    job = executors.plan_job(recipe, name="x")
    job.run_dir.mkdir()
    (job.run_dir / "recipe.yaml").write_text(job.recipe_yaml)
    (job.run_dir / "job.json").write_text(job.to_json())
    before = sorted(folder.rglob("*"))
    assert main(["resume", "x", "data.data_path=chat.json"]) == 2
    expected = "data.data_path=chat.json: no such file (did you mean chats.json?)"
    assert capfd.readouterr() == ("", f"error: {expected}\n")
    assert sorted(folder.rglob("*")) == before


def test_names_of_the_hub_and_the_home_folder_are_left_to_whom_they_concern(folder):
    recipe = llava.finetune("tiny")
    recipe.data.data_path, recipe.data.tokenizer = "~/chats.json", "owner/name"
    recipe.model.vision.from_pretrained = "owner/tower"
    job = executors.plan_job(recipe)
    assert job.missing == ()
    (folder / "planned.yaml").write_text(job.recipe_yaml)
    planned = load_recipe(folder / "planned.yaml")
    assert planned.data.data_path == str(folder / "chats.json")
    assert planned.data.tokenizer == "owner/name"


WRONG_FILES = [
    ("optim:\n", "optmi:\n", ["optmi: no such field (did you mean optim?)"]),
    ("  lr: 0.001\n", "  lr: fast\n", ["optim.lr='fast': expected a number > 0"]),
    ("  lr: 0.001\n", "", ["optim.lr"]),
    ("conv_template: v1", "conv_template: v2", ["data.conv_template='v2': expected one of plain, v1"]),
    ("class: LlavaDataConfig", "class: LavaDataConfig", ["LavaDataConfig", "LlavaDataConfig"]),
    ("trainer:", "trainer: [", ["saved.yaml"]),
]


@pytest.mark.parametrize(("old", "new", "parts"), WRONG_FILES)
def test_a_saved_recipe_that_is_wrong(old, new, parts, folder, capfd):
    text = recipe_to_yaml(llava.finetune("tiny"))
    assert old in text
    (folder / "saved.yaml").write_text(text.replace(old, new))
    assert main(["saved.yaml", "--dry-run"]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert all(part in err for part in ["saved.yaml", *parts]), err


def test_a_file_that_another_field_names_is_not_meant(folder, capfd):
    (folder / "chatz.json").write_bytes((folder / "chats.json").read_bytes())
    words = ["data.data_path=chat.json", "data.validation_data_path=chatz.json", "data.tokenizer=tokens"]
    assert main(["llava.finetune", "size=tiny", *words]) == 2
    assert capfd.readouterr().err == "error: data.data_path=chat.json: no such file (did you mean chats.json?)\n"
    (folder / "chats.json").unlink()
    assert main(["llava.finetune", "size=tiny", *words]) == 2
    assert capfd.readouterr().err == "error: data.data_path=chat.json: no such file; set it to the one to read\n"
