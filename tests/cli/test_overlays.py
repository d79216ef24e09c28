"""Files with some fields only, several files of recipes, byte order marks, and the version."""

import json
import subprocess
import sys
from importlib.metadata import version

import pytest

from neva_recipes import llava
from neva_recipes.cli.main import main
from neva_recipes.config import iterate_fields, load_recipe, recipe_from_yaml, recipe_to_yaml

BASE = "optim:\n  lr: 1e-5\ntrainer:\n  log_every_n_steps: 1_0\ndata:\n  image_folder: none\n"
ON_TOP = "trainer:\n  log_every_n_steps: 25\n"


@pytest.fixture
def dry_run(folder, capfd):
    """Return a function that returns the JSON of a dry run."""

    def call(*words):
        code = main([*words, "--dry-run", "--format", "json"])
        out, err = capfd.readouterr()
        assert code == 0, err
        return json.loads(out)

    return call


def test_fields_of_a_file_are_laid_over_a_recipe(dry_run, folder):
    (folder / "base.yaml").write_text(BASE)
    (folder / "top.yaml").write_text(ON_TOP)
    both = ["--config", "base.yaml", "--config", "top.yaml"]
    shown = dry_run("llava.finetune", "data.image_folder=images", *both, "trainer.seed=7")
    expected = {field.path: field.value for field in iterate_fields(llava.finetune())}
    expected |= {"optim.lr": 1e-5, "trainer.log_every_n_steps": 25, "data.image_folder": "images", "trainer.seed": 7}
    for path, value in expected.items():
        held = shown["recipe"]
        for name in path.split("."):
            held = held[name]
        assert held == value, path
    sources = shown["sources"]
    assert (sources["optim.lr"]["kind"], sources["optim.lr"]["file"], sources["optim.lr"]["line"]) == (
        "file", "base.yaml", 2,
    )  # fmt: skip
    assert (sources["trainer.log_every_n_steps"]["file"], sources["trainer.log_every_n_steps"]["line"]) == (
        "top.yaml",
        2,
    )
    assert sources["data.image_folder"]["kind"] == "command line"
    swapped = dry_run("llava.finetune", "--config", "top.yaml", "--config", "base.yaml")
    assert swapped["recipe"]["trainer"]["log_every_n_steps"] == 10


def test_over_saved_recipes_sweeps_and_fits(dry_run, folder, capfd):
    (folder / "saved.yaml").write_text(recipe_to_yaml(llava.finetune()))
    (folder / "top.yaml").write_text(ON_TOP)
    assert dry_run("saved.yaml", "--config", "top.yaml")["recipe"]["trainer"]["log_every_n_steps"] == 25
    # A whole recipe may be laid over another one of the same classes.
    assert dry_run("llava.pretrain", "--config", "saved.yaml")["recipe"] == dry_run("saved.yaml")["recipe"]
    (folder / "top.yaml").write_text("parallel:\n  tensor_model_parallel_size: 8\n")
    assert main(["fit", "llava.finetune", "--gpus", "8", "--config", "top.yaml", "--limit", "1"]) == 0
    assert "--config top.yaml" in capfd.readouterr().out
    (folder / "data.json").write_text("[]")
    words = ["optim.lr=1e-5,2e-5", "data.data_path=data.json", "--sweep", "--config", "top.yaml", "--dry-run"]
    assert main(["llava.finetune", *words]) == 2
    out, err = capfd.readouterr()
    assert "2 points, 8 processes each" in out and "data.data_path=data.json: holds no sample" in " ".join(err.split())


def test_what_the_documentation_prints(dry_run, folder):
    """The file of docs/recipes.md."""
    (folder / "my.yaml").write_text("optim:\n  lr: 1e-5\n")
    assert dry_run("llava.finetune", "--config", "my.yaml")["recipe"]["optim"]["lr"] == 1e-5


# What a file holds, and the answer behind its name.
WRONG = [
    ("optim:\n  lrr: 1", ", line 2: optim.lrr: no such field (did you mean lr?)"),
    ("optimm:\n  lr: 1", ", line 1: optimm: no such field (did you mean optim?)"),
    ("learning_rate: 1", ", line 1: learning_rate: no such field (did you mean optim.lr?)"),
    ("optim:\n  lr: fast", ", line 2: optim.lr='fast': expected a number > 0"),
    (
        "trainer:\n  max_steps: 010",
        ", line 2: trainer.max_steps='010': expected an integer >= 1 or none (did you mean 10?)",
    ),
    (
        "data:\n\n  data_path: ''",
        ", line 3: data.data_path='': is empty: expected a path or a list, each a path or none; none clears it",
    ),
    ("optim:\n  lr: 1\n  lr: 2", ": not valid YAML: line 3: 'lr' is there twice"),
    ("optim: 3", ", line 1: optim: expected a group of fields, got int"),
    ("optim: null", ", line 1: optim=None: expected OptimConfig"),
    ("optim.lr: 1", ", line 1: optim.lr: a dot divides nothing here: write optim: and lr: below it, further in"),
    ("size: 13b", ", line 1: size: is a parameter of the recipe: add size=VALUE to the command line"),
    (
        "executor:\n  time: 3",
        ", line 1: executor: is not a field of a recipe: fields of executors belong into a profile",
    ),
    (
        "data:\n  class: TextDataConfig",
        ", line 2: data.class='TextDataConfig': data of this recipe is a Llava",
    ),
    ("model:\n  vision:\n    freeze: 1", ", line 3: model.vision.freeze=1: expected true or false"),
    ("- optim", ": expected a group of fields, got list"),
    ("", ": names no field"),
    ("optim: [", ": not valid YAML: line 1: "),
    ("a: &a\n  b: *a", ": "),
]


@pytest.mark.parametrize(("text", "answer"), WRONG, ids=[text for text, _ in WRONG])
def test_mistakes_are_one_line_with_file_and_line(text, answer, folder, capfd):
    (folder / "my.yaml").write_text(text)
    assert main(["llava.finetune", "--config", "my.yaml"]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith(f"error: my.yaml{answer}")


def test_files_that_cannot_be_read(folder, capfd):
    (folder / "wide.yaml").write_text("optim:\n  lr: 1\n", encoding="utf-16")
    problems = {
        "no.yaml": "no such file",
        "wide.yaml": "cannot be read: byte 0 is not UTF-8 text",
        ".": "cannot be read: Is a directory",
    }
    for name, problem in problems.items():
        assert main(["llava.finetune", "--config", name]) == 2
        assert capfd.readouterr().err == f"error: {name}: {problem}\n"
    assert main(["gpt.pretrain", "--config", "x.yaml", "--dry-run"]) == 2
    assert capfd.readouterr().err == "error: x.yaml: no such file\n"
    assert main(["llava.pipeline", "--config", "x.yaml"]) == 2
    assert "--config: goes with a recipe, not with a pipeline" in capfd.readouterr().err
    (folder / "eyes.yaml").write_text("model:\n  vision:\n    freeze: true\n")
    assert main(["gpt.pretrain", "--config", "eyes.yaml"]) == 2
    assert "eyes.yaml, line 2: model.vision is none in this recipe, so it has no fields" in capfd.readouterr().err


def test_files_that_begin_with_a_byte_order_mark(folder, capfd, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "none"))
    (folder / "executors.toml").write_text('[p]\nkind = "local"\n', encoding="utf-8-sig")
    (folder / "saved.yaml").write_text(recipe_to_yaml(llava.finetune()), encoding="utf-8-sig")
    (folder / "top.yaml").write_text(ON_TOP, encoding="utf-8-sig")
    (folder / "own.py").write_text(
        "from neva_recipes import gpt\ndef mine():\n    return gpt.pretrain('tiny')\n", encoding="utf-8-sig"
    )
    assert recipe_to_yaml(load_recipe("saved.yaml")) == recipe_to_yaml(llava.finetune())
    assert recipe_from_yaml("\ufeff" + recipe_to_yaml(llava.finetune())).name == "llava.finetune"
    assert main(["executors"]) == 0
    assert "  p         local, from executors.toml\n" in capfd.readouterr().out
    assert main(["saved.yaml", "--config", "top.yaml", "--executor", "p", "--dry-run"]) == 0
    assert main(["mine", "--recipes", "own.py", "--dry-run"]) == 0


def test_several_files_of_recipes(folder, capfd):
    recipe = "from neva_recipes import gpt\ndef {}():\n    r = gpt.pretrain('tiny'); r.name = {!r}; return r\n"
    profile = (
        "import fiddle as fdl\nfrom executors import LocalExecutor\nfrom neva_recipes.config import config\n"
        "def box() -> fdl.Config[LocalExecutor]:\n    return config(LocalExecutor)\n"
    )
    (folder / "a.py").write_text(recipe.format("one", "one") + recipe.format("both", "of a"))
    (folder / "b.py").write_text(recipe.format("two", "two") + recipe.format("both", "of b") + profile)
    (folder / "c.py").write_text(profile)
    files = ["--recipes", "a.py", "--recipes", "b.py"]
    assert main(["list", *files]) == 0
    out = capfd.readouterr().out
    assert "a.py:\n  a.one" in out and "b.py:\n  b.two" in out
    for word, name in (("one", "one"), ("two", "two"), ("b.both", "of b"), ("a.both", "of a")):
        assert main([word, *files, "--recipes", "./a.py", "--executor", "box", "--dry-run"]) == 0
        assert f"\n  name: {name} " in capfd.readouterr().out
    assert main(["both", *files, "--dry-run"]) == 2
    assert capfd.readouterr().err == "error: both: in a.py and b.py; write a.both or b.both\n"
    assert main(["one", *files, "--recipes", "c.py", "--executor", "box", "--dry-run"]) == 2
    assert capfd.readouterr().err == "error: executor box: in b.py and c.py; rename one of them\n"
    (folder / "more").mkdir()
    (folder / "more" / "a.py").write_text(recipe.format("one", "other"))
    assert main(["one", *files, "--recipes", "more/a.py", "--dry-run"]) == 2
    assert "one: in a.py and more/a.py; rename one of the files" in capfd.readouterr().err


def test_the_version(capfd):
    assert main(["--version"]) == 0
    assert capfd.readouterr().out == f"nemo-run {version('neva-recipes')}\n"
    done = subprocess.run(
        [sys.executable, "-m", "neva_recipes", "--version"], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == f"nemo-run {version('neva-recipes')}\n"
