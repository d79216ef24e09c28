"""Wrong input: one line on stderr that names what is wrong and what to do, exit code 2, nothing written."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from neva_recipes.cli.main import main
from tests.nemo.importing import CONFIGS

NEMO_RUN = Path(sys.executable).with_name("nemo-run")

SMALL = """
model:
  micro_batch_size: 1
  global_batch_size: 8
  encoder_seq_length: 256
  num_layers: 2
  hidden_size: 64
  ffn_hidden_size: 128
  num_attention_heads: 4
  mm_cfg: {mm_mlp_adapter_type: linear}
"""

# Content of a.yaml, further arguments, parts of the answer.
WRONG = {
    "not YAML": ("model: [1, 2", [], ["a.yaml: not a YAML configuration: line 2"]),
    "a tab": ("model:\n\tx: 1", [], ["a.yaml: not a YAML configuration: line 2"]),
    "a key twice": ("model:\n  x: 1\n  x: 2", [], ["a.yaml: not a YAML configuration: ", "duplicate key"]),
    "an object of Python": ("model: !!python/object:os.system {}", [], ["a.yaml: not a YAML configuration: line 1"]),
    "empty": ("", [], ["a.yaml: has no model section", "expected a NeVA training configuration"]),
    "a list": ("[1, 2]", [], ["a.yaml: has no model section"]),
    "a word": ("hello", [], ["a.yaml: "]),
    "no model": ("trainer: {devices: 1}", [], ["a.yaml: has no model section"]),
    "a model that is a number": ("model: 3", [], ["a.yaml: has no model section"]),
    "a GPT": ("model: {num_layers: 2}", [], ["a.yaml: has no model.mm_cfg section", "nemo-run gpt.pretrain"]),
    "no layers": (
        SMALL.replace("  num_layers: 2\n", ""),
        [],
        ["model.num_layers is not there", "add model.num_layers="],
    ),
    "layers to be given": (
        SMALL.replace("num_layers: 2", "num_layers: ???"),
        [],
        ["model.num_layers=???: has to be given", "add model.num_layers=VALUE"],
    ),
    "layers that are none": (
        SMALL.replace("num_layers: 2", "num_layers: two"),
        [],
        ["model.num_layers=two", "a number"],
    ),
    "no layer at all": (SMALL.replace("num_layers: 2", "num_layers: 0"), [], ["model.num_layers=0", "integer >= 1"]),
    "leads nowhere": (
        SMALL + "  seed: ${run.seed}",
        [],
        ["a.yaml: model.seed=${run.seed}: cannot be resolved", "'run.seed' not found", "KEY=VALUE"],
    ),
    "an unknown function": (SMALL + "  seed: ${dice:6}", [], ["model.seed=${dice:6}: cannot be resolved", "dice"]),
    "a function that fails": (SMALL + "  seed: ${divide_floor:1, 0}", [], ["model.seed=", "cannot be resolved"]),
    "half an interpolation": (SMALL + "  seed: ${multiply:2", [], ["a.yaml: "]),
    "an unset variable": (SMALL + "  seed: ${oc.env:NO_SUCH_VARIABLE_HERE}", [], ["NO_SUCH_VARIABLE_HERE"]),
    "itself": (SMALL + "  seed: ${.seed}", [], ["a.yaml: model.seed"]),
    "a circle": (SMALL + "  seed: ${model.a}\n  a: ${model.seed}", [], ["a.yaml: model."]),
    "a word that is no override": (SMALL, ["trainer.devices"], ["trainer.devices: expected key=value"]),
    "an override of a section": (SMALL, ["model=3"], ["a.yaml: has no model section"]),
    "an override that is no value": (SMALL, ["model.seed=[1"], ["model.seed=[1: cannot be set: line "]),
    "an unknown flag": (SMALL, ["--outptu", "x.py"], ["--outptu: no such flag", "did you mean --output"]),
    "a name that is none": (SMALL, ["--name", "7b"], ["--name 7b: expected a name of letters"]),
    "a keyword": (SMALL, ["--name", "class"], ["--name class: expected a name"]),
    "a private name": (SMALL, ["--name", "_x"], ["--name _x: expected a name"]),
    "a name the file imports": (SMALL, ["--name", "parts"], ["--name parts: the file imports something of that name"]),
    "a built-in recipe": (SMALL, ["--name", "finetune", "--output", "neva.py"], ["neva.finetune is a built-in recipe"]),
    "a built-in recipe by itself": (
        SMALL + "\nname: pretrain",
        ["--output", "gpt.py"],
        ["gpt.pretrain is a built-in recipe: choose another --name"],
    ),
    "no Python file": (SMALL, ["--output", "x.yaml"], ["--output x.yaml: expected a Python file"]),
    "a file for a folder": (SMALL, ["--output", "a.yaml/x.py"], ["a.yaml/x.py: cannot be written: Not a directory"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input(case, folder, capfd):
    content, words, parts = WRONG[case]
    (folder / "a.yaml").write_text(content)
    assert main(["import-nemo", "a.yaml", *words]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("error: ") and err.count("\n") == 1
    for part in parts:
        assert part in err
    assert [path.name for path in folder.iterdir()] == ["a.yaml"]


def test_a_small_configuration_is_right(folder):
    (folder / "a.yaml").write_text(SMALL)
    assert main(["import-nemo", "a.yaml"]) == 0
    assert (folder / "recipe.py").exists()
    assert main(["import-nemo", "a.yaml", "--output", "new/folder/recipe.py"]) == 0
    assert (folder / "new" / "folder" / "recipe.py").read_text() == (folder / "recipe.py").read_text()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no.yaml", "no such file"),
        (".", "cannot be read: Is a directory"),
        ("bytes.yaml", "cannot be read: byte 7 is not UTF-8 text"),
    ],
)
def test_files_that_cannot_be_read(name, told, folder, capfd):
    (folder / "recipe.py").touch()  # which is told of after what there is to read
    (folder / "bytes.yaml").write_bytes(b"model: \xff\xfe")
    assert main(["import-nemo", name]) == 2
    out, err = capfd.readouterr()
    assert (out, err) == ("", f"error: {name}: {told}\n")


def test_no_configuration(folder, capfd):
    assert main(["import-nemo"]) == 2
    assert "the following arguments are required: CONFIG;" in capfd.readouterr().err


def test_an_existing_file_is_left_alone(folder, capfd):
    shutil.copy(CONFIGS / "pretrain.yaml", folder)
    (folder / "recipe.py").write_text("mine")
    assert main(["import-nemo", "pretrain.yaml"]) == 2
    assert capfd.readouterr().err == "error: recipe.py is there already: name another file with --output\n"
    assert (folder / "recipe.py").read_text() == "mine"


def test_a_disk_that_is_full_leaves_nothing(folder):
    shutil.copy(CONFIGS / "pretrain.yaml", folder)
    # Python would cut the byte code that it keeps, too, and never be able to read it again.
    limits = "trap '' XFSZ; ulimit -f 1; export PYTHONDONTWRITEBYTECODE=1"
    command = f"{limits}; exec {shlex.quote(str(NEMO_RUN))} import-nemo pretrain.yaml"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "error: recipe.py: cannot be written: File too large\n" in done.stderr
    assert [path.name for path in folder.iterdir()] == ["pretrain.yaml"]


def test_the_launchers_folders_have_to_be_given(folder, capfd):
    shutil.copy(CONFIGS / "launcher.yaml", folder)
    assert main(["import-nemo", "launcher.yaml"]) == 2
    assert "run.results_dir=${base_results_dir}/${.name}: cannot be resolved" in capfd.readouterr().err
