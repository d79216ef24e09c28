"""Every value is traced to the place that set it."""

import copy
import inspect
import json
import linecache

import fiddle as fdl
from fiddle import history

from neva_recipes import gpt, llava, neva, parts
from neva_recipes.cli.main import main
from neva_recipes.config import (
    COMMAND_LINE,
    LlavaDataConfig,
    OptimConfig,
    config,
    iterate_fields,
    load_recipe,
    recipe_to_yaml,
    set_field,
    value_from,
)
from neva_recipes.inspection import source_of


def sources(recipe):
    """Return the source of every field by its path."""
    found = {}
    for field in iterate_fields(recipe):
        *groups, name = field.path.split(".")
        node = recipe
        for group in groups:
            node = getattr(node, group)
        found[field.path] = source_of(node, name)
    return found


def test_python_sources_name_the_line_that_sets_the_field():
    """Whatever a line is said to set, the line says so."""
    for recipe in (llava.pretrain("13b"), llava.finetune("tiny"), neva.finetune(), gpt.pretrain("tiny")):
        python = {path: source for path, source in sources(recipe).items() if source.kind == "python"}
        assert len(python) > 20
        for path, source in python.items():
            lines = linecache.getlines(source.file)
            assert source.file.endswith(("llava.py", "neva.py", "gpt.py", "parts.py")), path
            statement = "".join(lines[source.line - 1 : source.line + 8])
            name = path.rpartition(".")[2]
            # Helpers set several fields at once, for the function that calls them.
            indirect = (
                "assemble(",
                "scale_to_laptop(",
                "split_over_node(",
                "recompute_every_layer(",
                "LLAMA_SHAPES",
                "CLIP_TINY",
            )
            assert name in statement or any(helper in statement for helper in indirect), (path, str(source))


def test_built_in_functions_are_named():
    found = sources(llava.finetune("13b"))
    assert str(found["optim.lr"]) == "llava.finetune"
    assert str(found["parallel.tensor_model_parallel_size"]) == "llava.finetune"
    assert str(found["model.language.num_layers"]) == "parts.llama"
    assert str(found["model.vision.image_size"]) == "parts.clip_vit_large"
    assert str(found["checkpoint.every_n_train_steps"]) == "llava"
    assert str(found["optim.adam_beta1"]) == "default"


def test_a_value_given_equal_to_the_default_was_given():
    node = config(OptimConfig, adam_beta1=0.9)
    here = source_of(node, "adam_beta1")
    assert (here.kind, here.file, here.line) == ("python", __file__, inspect.currentframe().f_lineno - 2)
    assert source_of(node, "adam_beta2").kind == "default"
    # Without our helper a default is one too, though it is written nowhere.
    assert source_of(fdl.Config(OptimConfig, lr=1.0), "adam_beta2").kind == "default"


def test_composed_and_copied_recipes_keep_their_sources():
    recipe = copy.deepcopy(llava.finetune())
    recipe.optim = neva.finetune().optim
    recipe.model.vision = parts.clip_vit_large(224)
    recipe = copy.deepcopy(recipe)
    recipe.data.num_workers = 7
    line = inspect.currentframe().f_lineno - 1
    set_field(recipe, "trainer.seed", "5")
    recipe = copy.deepcopy(recipe)
    found = sources(recipe)
    assert str(found["optim.lr"]) == "neva.finetune"
    assert str(found["model.vision.image_size"]) == "parts.clip_vit_large"
    assert str(found["data.conv_template"]) == "llava.finetune"
    assert str(found["data.num_workers"]) == f"test_sources.py:{line}"
    assert str(found["trainer.seed"]) == f"test_sources.py:{line + 2}"


def test_command_line_sources_remember_what_they_replaced():
    recipe = llava.finetune()
    with value_from(COMMAND_LINE):
        set_field(recipe, "optim.lr", "1e-4")
        set_field(recipe, "optim.lr", "1e-3")
        set_field(recipe, "data.tokenizer", "here")
    assert (source_of(recipe.optim, "lr").kind, source_of(recipe.optim, "lr").replaced) == ("command line", 2e-5)
    assert source_of(recipe.data, "tokenizer").replaced is None
    recipe.optim.lr = 0.5
    assert source_of(recipe.optim, "lr").kind == "python"
    with value_from(COMMAND_LINE):
        set_field(recipe, "model.vision", "none")
    assert source_of(recipe.model, "vision").replaced == "VisionConfig"


def test_a_replaced_secret_is_not_shown():
    recipe = llava.finetune()
    recipe.data.tokenizer = "https://me:hunter2hunter2@example.com/x"
    with value_from(COMMAND_LINE):
        set_field(recipe, "data.tokenizer", "here")
    assert "hunter2" not in source_of(recipe.data, "tokenizer").replaced


def test_saved_files_are_named_with_the_line_of_each_field(folder):
    saved = folder / "säved.yaml"
    saved.write_text(recipe_to_yaml(llava.finetune("tiny")), encoding="utf-8")
    lines = saved.read_text(encoding="utf-8").splitlines()
    for path, source in sources(load_recipe(saved)).items():
        assert (source.kind, source.file) == ("file", str(saved))
        assert lines[source.line - 1].strip().startswith(f"{path.rpartition('.')[2]}:")
        assert str(source) == f"säved.yaml:{source.line}"


def test_without_a_history_nothing_is_claimed():
    with history.suspend_tracking():
        node = config(LlavaDataConfig, num_workers=3)
    assert source_of(node, "num_workers").kind == "unknown"


USER_FILE = """\
from neva_recipes import llava

def digits():
    recipe = llava.finetune("tiny")
    recipe.trainer.max_steps = 7
    return recipe
"""


def test_the_command_tells_them_all_apart(folder, capfd):
    (folder / "llava.py").write_text(USER_FILE.replace("digits", "mine"))  # of ours by name, not by place
    words = ["mine", "--recipes", "llava.py", "optim.lr=0.25", "--dry-run", "--format", "json"]
    assert main(words) == 0
    found = json.loads(capfd.readouterr().out)["sources"]
    assert found["optim.lr"] == {"kind": "command line", "replaced": 1e-3}
    assert found["trainer.max_steps"] == {
        "kind": "python",
        "file": str(folder / "llava.py"),
        "line": 5,
        "function": "mine",
    }
    assert found["trainer.seed"] == {"kind": "default"}
    assert main([*words[:3], "optim.lr=0.25", "--dry-run"]) == 0
    text = capfd.readouterr().out
    assert "\n*   lr: 0.25                                            command line, was 0.001\n" in text
    assert "    max_steps: 7                                        llava.py:5\n" in text
