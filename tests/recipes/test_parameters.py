"""Parameters of recipe functions of every kind: read from the command line, or told how they are set."""

import json
from pathlib import Path

import pytest

from neva_recipes.cli.main import main
from neva_recipes.config import RecipeError, build
from neva_recipes.registry import find_pipeline, find_recipe

FILE = '''
from __future__ import annotations
import enum
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Dict, List, Literal, Optional, Union
from neva_recipes import gpt
if TYPE_CHECKING:
    from somewhere import Thing
class Mode(enum.Enum):
    A = "first"
    B = 2
class Odd:
    pass
def every(
    tags: list = None, path: Path = Path("x"), mode: Mode = Mode.A, maybe: Optional[int] = None,
    either: Union[int, str] = 3, table: dict = {"k": "v"}, typed: dict[str, float] = {}, one: Literal["x", "y"] = "x",
    size: Literal[224, 336] = 224, numbers: list[int] = [1], paths: tuple[Path, ...] = (), names: Sequence[str] = (),
    flag: bool = False, text: str = "", anything: Any = None, noted: Annotated[int, "in tokens"] = 1,
    lr: float = 1e-3, thing: Thing | None = None, odd: Odd = None, call: Callable[[int], int] = abs,
    plain=None, counted=3, ratio=0.5, place=Path("y"), kind=Mode.A, several=[], pair=(1, 2),
    yes=True, data: str | list[str] = "a.json", none_yet: str | list[str] = "", count: int | list[int] = 0,
    bare: List = ["x"], bare_table: Dict = {"k": "v"}, *, only: float = 1.0,
):
    """Takes all kinds."""
    Path("seen.json").write_text(json.dumps({name: repr(value) for name, value in locals().items()}))
    return gpt.pretrain("tiny")
def many(*args, **kwargs):
    """Takes anything."""
    return gpt.pretrain("tiny")
def by_place(n=1, /):
    """Takes it by its place."""
    return gpt.pretrain("tiny")
def needs(odd: Odd):
    """Cannot be run by name."""
    return gpt.pretrain("tiny")
'''


@pytest.fixture
def entry(tmp_path, monkeypatch):
    """Return a function that returns a recipe of the file."""
    path = tmp_path / "kinds.py"
    path.write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return lambda name: find_recipe(name, path)


def seen(name):
    """Return what the function got for a parameter, as Python writes it: what it keeps in its module is undone."""
    return json.loads(Path("seen.json").read_text())[name]


# What is typed, and what the function gets, as Python writes it.
GIVEN = [
    ({"tags": "a,b"}, "['a', 'b']"),
    ({"tags": '["a,b", c]'}, "['a,b', 'c']"),
    ({"tags+": '"a,b",c'}, "['a,b', 'c']"),
    ({"tags": "none"}, "None"),
    ({"path": "/a/b"}, "PosixPath('/a/b')"),
    ({"mode": "B"}, "<Mode.B: 2>"),
    ({"mode": "2"}, "<Mode.B: 2>"),
    ({"mode": "first"}, "<Mode.A: 'first'>"),
    ({"maybe": "7"}, "7"),
    ({"maybe": "none"}, "None"),
    ({"either": "7"}, "7"),
    ({"either": "x"}, "'x'"),
    ({"table.a": "x", "table.b.c": "1"}, "{'k': 'v', 'a': 'x', 'b.c': '1'}"),
    ({"table": "{}", "table.a": "x"}, "{'a': 'x'}"),
    ({"typed.a": "1e-3"}, "{'a': 0.001}"),
    ({"one": "y"}, "'y'"),
    ({"size": "336"}, "336"),
    ({"numbers": "1,2"}, "[1, 2]"),
    ({"numbers+": "2"}, "[1, 2]"),
    ({"paths": "a,b"}, "(PosixPath('a'), PosixPath('b'))"),
    ({"names": "a,b"}, "['a', 'b']"),
    ({"flag": "true"}, "True"),
    ({"text": ""}, "''"),
    ({"text": "none"}, "'none'"),
    ({"anything": "x"}, "'x'"),
    ({"noted": "1_000"}, "1000"),
    ({"lr": "3e-5"}, "3e-05"),
    ({"plain": "x"}, "'x'"),
    ({"plain": "none"}, "None"),
    ({"counted": "4"}, "4"),
    ({"ratio": "1"}, "1.0"),
    ({"place": "z"}, "PosixPath('z')"),
    ({"kind": "B"}, "<Mode.B: 2>"),
    ({"several": "a"}, "['a']"),
    ({"pair": "a,b"}, "('a', 'b')"),
    ({"yes": "false"}, "False"),
    ({"only": "2"}, "2.0"),
    ({"data+": "b.json"}, "['a.json', 'b.json']"),
    ({"data+": '"b,c.json",d.json'}, "['a.json', 'b,c.json', 'd.json']"),
    ({"data": "b.json,c.json", "data+": "d.json"}, "['b.json', 'c.json', 'd.json']"),
    ({"none_yet+": "b.json"}, "['b.json']"),
    ({"count+": "1"}, "[0, 1]"),
    ({"bare+": "y"}, "['x', 'y']"),
    ({"bare_table.a": "1"}, "{'k': 'v', 'a': '1'}"),
]


@pytest.mark.parametrize(("arguments", "expected"), GIVEN, ids=[str(case[0]) for case in GIVEN])
def test_values(arguments, expected, entry):
    recipe = entry("every")
    recipe.make(arguments)
    name = next(iter(arguments)).partition(".")[0].removesuffix("+")
    assert seen(name) == expected


def test_a_default_is_what_it_was_after_items_were_added(entry):
    recipe = entry("every")
    recipe.make({"table.a": "x", "numbers+": "2"})
    recipe.make()
    assert (seen("table"), seen("numbers")) == ("{'k': 'v'}", "[1]")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "C"}, r"^kinds.every mode='C': expected one of A, B$"),
        ({"size": "300"}, r"^kinds.every size='300': expected one of 224, 336$"),
        ({"numbers": "1,x"}, r"^kinds.every numbers='1,x': expected a list, each an integer$"),
        ({"noted": "010"}, r"^kinds.every noted='010': expected an integer \(did you mean 10\?\)$"),
        ({"flag": "1"}, r"^kinds.every flag='1': expected true or false$"),
        ({"path": ""}, r"^kinds.every path='': expected a path$"),
        ({"table": "x"}, r"^kinds.every table=x: is a table, .* by name: kinds.every table.NAME=VALUE$"),
        ({"lr+": "1"}, r"^kinds.every lr\+=1: is no list: write lr=1$"),
        ({"thing": "x"}, r"^kinds.every thing: cannot be set .*: its type Thing \| None is not known: NameError"),
        ({"odd": "x"}, r"^kinds.every odd: cannot be set on the command line: its type is Odd"),
        ({"call": "x"}, r"^kinds.every call: cannot be set on the command line: its type is Callable"),
    ],
)
def test_what_cannot_be_read_is_told(arguments, message, entry):
    with pytest.raises(RecipeError, match=message):
        entry("every").make(arguments)


def test_functions_that_take_values_by_place_or_any_name(entry):
    entry("many").make()
    entry("by_place").make()
    for recipe, name in (("many", "args"), ("many", "kwargs"), ("by_place", "n")):
        with pytest.raises(RecipeError, match=rf"^kinds.{recipe} {name}: cannot be set on the command line: it "):
            entry(recipe).make({name: "1"})
    with pytest.raises(
        RecipeError, match=r"^kinds.needs needs odd, but cannot be set .*: its type is Odd: give it a default"
    ):
        entry("needs").make()


UNTYPED = """
from neva_recipes import llava
from neva_recipes.config import Draft, Recipe
from neva_recipes.pipeline import Pipeline, Stage
def plain(lr, files=None, steps=None):
    made = llava.finetune("tiny")
    made.optim.lr = lr
    made.data.validation_data_path = files
    if steps:
        made.trainer.max_steps = steps
    return made
def staged(lr) -> Pipeline:
    return Pipeline("staged", Stage("one", plain(lr)))
def quoted():
    made = llava.finetune("tiny")
    made.optim.lr = "0.001"
    made.model.vision.freeze = "true"
    return made
"""


@pytest.fixture
def untyped(tmp_path):
    """Return a function that returns a recipe of a file whose parameters have no types."""
    (tmp_path / "untyped.py").write_text(UNTYPED)
    return lambda name: find_recipe(name, tmp_path / "untyped.py")


@pytest.mark.parametrize(("typed", "number"), [("1e-3", 0.001), ("0.001", 0.001), ("1", 1.0)])
def test_a_text_of_no_type_is_what_its_field_reads(typed, number, untyped, tmp_path):
    made = build(untyped("plain").make({"lr": typed, "files": "none", "steps": "1_000"}))
    assert (made.optim.lr, made.data.validation_data_path, made.trainer.max_steps) == (number, None, 1000)
    pipeline = find_pipeline("staged", tmp_path / "untyped.py").make_pipeline({"lr": typed})
    assert build(pipeline.stage("one").work).optim.lr == number


@pytest.mark.parametrize(
    ("typed", "told"),
    [("schnell", "expected a number > 0$"), ("0x10", r"expected a number > 0 \(did you mean 16\?\)$")],
)
def test_a_wrong_text_of_no_type_is_told_with_its_parameter(typed, told, untyped):
    with pytest.raises(RecipeError, match=rf"^untyped.plain lr: optim.lr='{typed}': {told}"):
        untyped("plain").make({"lr": typed})


def test_no_advice_is_what_was_written_and_the_line_is_named(untyped, tmp_path):
    with pytest.raises(RecipeError) as caught:
        build(untyped("quoted").make().optim)
    told = "lr='0.001': expected a number > 0 (this is a text: write 0.001 without quotes)"
    line = UNTYPED.splitlines().index('    made.optim.lr = "0.001"') + 1
    assert str(caught.value).endswith(f"{told} ({tmp_path}/untyped.py, line {line})")
    with pytest.raises(RecipeError, match=r"\(this is a text: write true without quotes\)"):
        build(untyped("quoted").make().model.vision)


@pytest.mark.parametrize("name", ["plain", "staged"])
def test_the_help_comes_without_what_must_be_given(name, untyped, tmp_path, capsys):
    assert main([name, "--recipes", str(tmp_path / "untyped.py"), "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: nemo-run untyped.{name} lr=VALUE" in out or f"usage: nemo-run {name} lr=VALUE" in out
    assert "  lr=VALUE\n" in out and f"{name} lr=VALUE --help shows" in " ".join(out.split())


def test_the_help_names_them_all(entry, capsys):
    assert main(["every", "--recipes", "kinds.py", "--help"]) == 0
    out = capsys.readouterr().out
    shown = out[out.index("parameters of the recipe:") : out.index("fields of the recipe")]
    for line in (
        "  mode=A\n      [one of A, B]",
        "  table=k=v\n",
        "  path=x\n      [a path]",
        "  pair=1,2\n      [a list]",
        "  bare=x\n      [a list, each a string]",
        "  bare_table=k=v\n      [a table by name, each a string]",
    ):
        assert line in shown
    told = "thing [not set on the command line: its type Thing | None is not known: NameError:"
    assert told in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80
