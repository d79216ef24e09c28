"""Values written on the command line, in YAML and in TOML: one rule for numbers, lists, nothing and the empty text."""

import re
import shlex

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from executors.profiles import toml_profiles
from neva_recipes import gpt, llava
from neva_recipes.cli.arguments import split_overrides
from neva_recipes.cli.main import main
from neva_recipes.config import (
    HerePaths,
    LlavaDataConfig,
    RecipeError,
    TherePath,
    build,
    config,
    describe_type,
    field_types,
    format_value,
    parse_value,
    recipe_from_yaml,
    recipe_to_yaml,
    set_field,
)

# Fields hold no control characters and no separators of lines, whatever is typed.
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=12) | st.sampled_from(
    ["", " ", ",", "none", "NULL", "[a]", "[", "]", '"', "'", '"a', "a'b", "\\", '\\"', "a, b", "\u202e", "\ufeff"]
)


@given(st.lists(TEXT, max_size=4))
@example(["--cpu-bind=map_cpu:0,1"])
@example([" export A=1,2", "b"])
def test_any_list_of_any_strings_survives_printing_and_parsing(items):
    shown = format_value(items)
    assert parse_value(list[str], shown, "x") == items
    assert parse_value(list[str], f"[{shown}]" if items else shown, "x") == items
    words = [f"executor.setup={shown}"]
    assert split_overrides(shlex.split(shlex.join(words))) == {"executor.setup": shown}
    assert shown.isprintable() or not shown.isascii()


def test_a_rate_of_weights_is_no_secret():
    recipe = llava.lora()
    set_field(recipe, "optim.lr_of.language.embed_tokens", "1e-5")
    set_field(recipe, "optim.lr_of.language.key", "1")
    assert format_value(recipe.optim.lr_of) == "projector=2e-05,language.embed_tokens=1e-05,language.key=1.0"
    assert format_value({"MY_TOKEN": "1e-05", "PIN_KEY": 12345678}) == "MY_TOKEN=***,PIN_KEY=***"


@given(st.lists(TEXT, min_size=1, max_size=4))
def test_items_that_are_added_stay_as_they_were_typed(items):
    overrides = split_overrides([f"x+={item}" for item in items])
    assert parse_value(list[str], overrides["x+"], "x") == items


@pytest.mark.parametrize("text", ["a,", ",a", "a,,b", "a, ,b", '"a",', "[a,,b]", ","])
@pytest.mark.parametrize("kind", [list[str], set[str], tuple[str, ...], HerePaths])
def test_nothing_beside_a_comma(kind, text):
    """What `a.json,$VARIABLE` becomes where the variable is not set."""
    with pytest.raises(RecipeError, match=r"x=.*: an item is empty"):
        parse_value(kind, text, "x")


def test_places_of_a_tuple():
    kind = tuple[int, str]
    assert parse_value(kind, "3,c", "x") == (3, "c") and parse_value(kind, "[3, 4]", "x") == (3, "4")
    for text in ("3", "c,3", "3,c,d", "3,"):
        with pytest.raises(RecipeError):
            parse_value(kind, text, "x")
    assert describe_type(kind) == "2 values: an integer, a string"


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("a,b", ["a", "b"]),
        (" a , b", ["a", "b"]),
        ("[ a , b, ]", ["a", "b"]),
        ("[a, b]", ["a", "b"]),
        ('["a", "b"]', ["a", "b"]),
        ("['a,b', c]", ["a,b", "c"]),
        ('"a,b"', ["a,b"]),
        (r'"a\"b\\,\u00e9"', ['a"b\\,é']),
        ("'a\\'", ["a\\"]),
        ("--cpu-bind=map_cpu:0,1", ["--cpu-bind=map_cpu:0", "1"]),
        ("it's", ["it's"]),
        ("", []),
        ("[]", []),
        ('""', [""]),
    ],
)
def test_lists(text, items):
    assert parse_value(list[str], text, "x") == items


def test_no_paths_are_not_the_name_of_one():
    annotation = field_types(LlavaDataConfig)["data_path"]
    assert parse_value(annotation, "[]", "x") == []


@pytest.mark.parametrize("text", ['export A="1,2"', "a,b'c", r'"\d,1"'])
def test_a_list_that_would_be_torn_apart_is_refused(text):
    with pytest.raises(RecipeError, match=r"divides items too: .*x\+=ITEM|begins an escape of JSON"):
        parse_value(list[str], text, "x")


def test_on_the_command_line(capsys):
    words = ["executor.srun='--cpu-bind=map_cpu:0,1'", "executor.setup+=export A=1,2", "executor.setup+= b"]
    assert main(["executors", "slurm", *words]) == 0
    shown = [line.strip() for line in capsys.readouterr().out.splitlines()]
    printed = [line for line in shown if line.startswith(("executor.srun=", "executor.setup="))]
    assert len(printed) == 2
    again = split_overrides([word for line in printed for word in shlex.split(line)])
    assert parse_value(list[str], again["executor.srun"], "x") == ["--cpu-bind=map_cpu:0,1"]
    assert parse_value(list[str], again["executor.setup"], "x") == ["export A=1,2", " b"]


def test_adding_to_lists_of_recipes():
    recipe = llava.finetune()
    set_field(recipe, "model.recompute_modules", '["mlp"]')
    set_field(recipe, "model.recompute_modules+", "core_attn")
    assert recipe.model.recompute_modules == ["mlp", "core_attn"]
    assert split_overrides(["a+=1", "a=2", "a+=3"]) == {"a": "2", "a+": "3"}
    with pytest.raises(RecipeError, match=r"^optim.lr\+=3: is no list: write optim.lr=3$"):
        set_field(recipe, "optim.lr+", "3")


# What is written, and the number that it is; None where it is none: for an integer, and for any number.
NUMBERS = [
    ("10", 10, 10.0),
    ("-0", 0, 0.0),
    ("+3", 3, 3.0),
    ("1_000", 1000, 1000.0),
    ("1_000.5", None, 1000.5),
    ("2e-5", None, 2e-5),
    ("1e3", None, 1000.0),
    (".5", None, 0.5),
    ("1.", None, 1.0),
    ("010", None, None),
    ("1__0", None, None),
    ("_1", None, None),
    ("1_", None, None),
    ("0x10", None, None),
    ("0b1", None, None),
    ("0o7", None, None),
    ("٣", None, None),
    ("1:30", None, None),
    ("1,5", None, None),
    ("ten", None, None),
]


def lines_of(recipe, path, text):
    """Return the recipe as YAML with a value in the place of a field."""
    name = path.rpartition(".")[2]
    return "\n".join(
        f"{line.partition(':')[0]}: {text}" if line.strip().startswith(f"{name}:") else line
        for line in recipe_to_yaml(recipe).splitlines()
    )


@pytest.mark.parametrize(("text", "whole", "number"), NUMBERS, ids=[ascii(case[0]) for case in NUMBERS])
def test_numbers_are_the_same_everywhere(text, whole, number):
    for annotation, field, value in ((int, "vision_select_layer", whole), (float, "clip_grad", number)):
        recipe = llava.finetune()
        path = "model.vision.vision_select_layer" if annotation is int else "optim.clip_grad"
        if value is None or (annotation is float and value < 0):
            with pytest.raises(RecipeError, match=r"expected an integer|expected a number"):
                set_field(recipe, path, text)
            with pytest.raises(RecipeError, match=r"expected an integer|expected a number|not valid YAML"):
                recipe_from_yaml(lines_of(recipe, path, text))
        else:
            set_field(recipe, path, text)
            read = recipe_from_yaml(lines_of(llava.finetune(), path, text))
            for made in (recipe, read):
                held = getattr(made.model.vision if annotation is int else made.optim, field)
                assert held == value and type(build(made).optim.clip_grad) is float


@pytest.mark.parametrize(("text", "meant"), [("010", "10"), ("0x10", "16"), ("1e3", "1000"), ("٣", "3"), (" 3", "3")])
def test_a_number_that_was_meant_is_offered(text, meant):
    with pytest.raises(RecipeError, match=rf"expected an integer >= 1 or none \(did you mean {meant}\?\)"):
        set_field(llava.finetune(), "trainer.max_steps", text)


@pytest.mark.parametrize("text", ["010", "0x10", "1_000", "1e3", "09", ".5", "yes", "none", "null", "~", "2024-01-01"])
def test_texts_that_look_like_something_else_are_written_so_that_every_reader_takes_them_for_texts(text):
    import yaml

    recipe = gpt.pretrain("tiny")
    recipe.name = text
    written = recipe_to_yaml(recipe)
    assert yaml.safe_load(written)["name"] == text
    assert recipe_from_yaml(written).name == text


# Fields of a path or a name that may be None, and others.
EMPTY_OPTIONAL = ["data.image_folder", "data.data_path", "data.tokenizer", "data.validation_data_path"]
EMPTY_OPTIONAL += ["logging.wandb_project", "trainer.max_steps"]


@pytest.mark.parametrize("blank", ["", " ", "\t"])
@pytest.mark.parametrize("path", [*EMPTY_OPTIONAL, "name"])
def test_an_empty_text_is_no_path_and_no_name(path, blank):
    remedy = "; none clears it$" if path != "name" else "expected a string$"
    if blank != "\t":
        with pytest.raises(RecipeError, match=rf"^{path}={blank!r}: is empty: .*{remedy}"):
            set_field(llava.finetune(), path, blank)
    recipe = llava.finetune()
    node = recipe
    *groups, name = path.split(".")
    for group in groups:
        node = getattr(node, group)
    setattr(node, name, blank)
    problem = "has a line break, a control character" if blank == "\t" else "is empty"
    with pytest.raises(RecipeError, match=rf"{re.escape(path)}=.*: {problem}"):
        build(recipe)
    with pytest.raises(RecipeError, match=rf"{re.escape(path)}=.*: is empty"):
        recipe_from_yaml(lines_of(llava.finetune(), path, '""'))
    with pytest.raises(RecipeError, match=r"is empty: expected a path or none; none clears it$"):
        LlavaDataConfig(image_folder=blank if blank != "\t" else "")


def test_an_empty_item_is_no_path():
    for text in ('a.json,""', "a.json, '' "):
        with pytest.raises(RecipeError, match=r"^executor.container_mounts=.*: expected a list, each a path"):
            parse_value(list[TherePath], text, "executor.container_mounts")
    recipe = llava.finetune()
    set_field(recipe, "data.data_path", "a.json")
    with pytest.raises(RecipeError, match=r"^data.data_path=\['a.json', ''\]: an item is empty"):
        set_field(recipe, "data.data_path+", '""')  # as `data.data_path+=` adds it
        build(recipe)
    with pytest.raises(RecipeError, match=r"an item is empty"):
        recipe_from_yaml(lines_of(llava.finetune(), "data.data_path", '[a.json, ""]'))


@pytest.mark.parametrize("word", ["none", "None", "null", "NULL"])
def test_nothing_has_the_same_words_everywhere(word, tmp_path, monkeypatch):
    recipe = llava.finetune()
    for path in ("data.image_folder", "optim.warmup_steps", "model.recompute_modules"):
        set_field(recipe, path, word)
    assert recipe.data.image_folder is recipe.optim.warmup_steps is recipe.model.recompute_modules is None
    for text in (word, f'"{word}"', "~"):
        assert recipe_from_yaml(lines_of(llava.finetune(), "data.image_folder", text)).data.image_folder is None
    assert build(config(LlavaDataConfig, image_folder=word)).image_folder is None
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    (tmp_path / "executors.toml").write_text(f'[a]\nkind = "slurm"\npartition = "{word}"\n')
    assert toml_profiles()["a"].load().partition is None


def test_an_empty_field_of_a_profile(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    (tmp_path / "executors.toml").write_text(
        '[a]\nkind = "slurm"\npartition = ""\n[b]\nkind = "slurm"\ncontainer_workdir = ""\n'
        '[c]\nkind = "slurm"\nsbatch = { requeue-hold = "" }\nenv = { EMPTY = "" }\n'
    )
    for name, line in (("a", 3), ("b", 6)):
        with pytest.raises(RecipeError, match=rf"^executors.toml, line {line}: .*='': is empty"):
            toml_profiles()[name].load()
    made = toml_profiles()["c"].load()
    assert made.sbatch == {"requeue-hold": ""} and made.env == {"EMPTY": ""}  # a flag, and a variable like any other
