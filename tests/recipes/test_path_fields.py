"""`~` and relative names mean the same wherever a path of this machine is taken, and nothing where it is another's."""

import argparse
import dataclasses
import inspect
import json
import re
import typing
from collections.abc import Iterator
from pathlib import Path

import fiddle as fdl
import pytest

import executors
from executors import Evaluate, Export, LocalExecutor, Pipeline, Stage, list_runs, plan_pipeline
from executors.registry import executor_kinds, find_executor
from executors.runs.cleanup import find_leftovers
from executors.runs.going_back import find_earlier
from neva_recipes import gpt, llava
from neva_recipes.cli.arguments import StrictParser, path_argument
from neva_recipes.cli.main import main
from neva_recipes.config import (
    ConfigNode,
    LoraConfig,
    PathOn,
    RecipeError,
    RunError,
    build,
    check_value,
    config,
    field_types,
    iterate_fields,
    listed_paths,
    load_recipe,
    recipe_from_yaml,
    recipe_to_yaml,
)
from neva_recipes.pipeline import ModelTool, Tool
from neva_recipes.registry import find_recipe

QUESTION = '[{"conversations": [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Hi."}]}]'
NAMED_LIKE_A_PATH = re.compile(r"(path|dir|folder|file|mounts|python|pretrained|tokenizer|container_image)$")


def rules(annotation) -> list[PathOn]:
    """Return what an annotation says of paths, in lists and alternatives too."""
    found = [rule for rule in getattr(annotation, "__metadata__", ()) if isinstance(rule, PathOn)]
    return found + [rule for part in typing.get_args(annotation) for rule in rules(part)]


def node_classes() -> Iterator[type]:
    for kind in executor_kinds():
        kind.load()
    open_ends: list[type] = [ConfigNode]
    while open_ends:
        of_ours = [cls for cls in open_ends.pop().__subclasses__() if cls.__module__.startswith(("neva_", "executors"))]
        yield from of_ours
        open_ends += of_ours


FIELDS = {(cls, name): note for cls in node_classes() for name, note in field_types(cls).items()}


def _declares(cls: type, name: str) -> bool:
    """Return whether a class has a field of its own, or from a base that cannot be made."""
    homes = [base for base in cls.__mro__ if base is cls or inspect.isabstract(base)]
    return not inspect.isabstract(cls) and any(name in vars(base).get("__annotations__", {}) for base in homes)


def fields_of(machine: str) -> list:
    """Return the fields that take a path of a machine, each by the first class with it that can be made."""
    found = [
        (cls, name)
        for (cls, name), note in FIELDS.items()
        if any(rule.machine == machine for rule in rules(note)) and _declares(cls, name)
    ]
    return [pytest.param(cls, name, id=f"{cls.__name__}.{name}") for cls, name in found]


def test_every_field_that_is_named_like_a_path_says_whose_it_is():
    named = {(cls, name) for cls, name in FIELDS if NAMED_LIKE_A_PATH.search(name)}
    assert {key for key in named if not rules(FIELDS[key])} == set()
    assert len(fields_of("this")) >= 10 and len(fields_of("another")) >= 5 and len(fields_of("both")) == 1


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder, and the current folder beside it, each with files and a folder of one name."""
    for folder in ("home", "here"):
        (tmp_path / folder / "in").mkdir(parents=True)
        (tmp_path / folder / "in" / "x").write_text(QUESTION)
        (tmp_path / folder / "in" / "questions.json").write_text(QUESTION)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def given_to_a_run(cls: type, name: str, value: str) -> str:
    """Return what the run of a recipe or tool gets for a field that holds `value`."""
    if issubclass(cls, Tool):
        kind = Export if cls is ModelTool else cls
        needed = {field.name: field for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING}
        values = {field: "in/questions.json" if rules(FIELDS[kind, field]) else 400 for field in needed}
        planned = plan_pipeline(Pipeline("p", Stage("a", config(kind, **values | {name: value}))))
        assert planned.problems == ()
        (job,) = planned.stage_jobs(planned.job.run_dir)
        tool = json.loads(job.inputs["tool.json"])
        (given,) = listed_paths(tool["fields"][name])
        assert any(word.rpartition("=")[2] == given for word in tool["arguments"])
        return given
    recipe = llava.finetune("tiny")
    recipe.model.language.lora = config(LoraConfig)
    paths = {
        field.path: field
        for field in iterate_fields(recipe)
        if issubclass(field.owner, cls) and field.path.endswith(name)
    }
    (path,) = [path for path in paths if path.rpartition(".")[2] == name]
    node: fdl.Buildable = recipe
    for group in path.split(".")[:-1]:
        node = getattr(node, group)
    setattr(node, name, value)
    text = executors.plan_job(recipe).recipe_yaml
    return {field.path: field.value for field in iterate_fields(recipe_from_yaml(text))}[path]


@pytest.mark.parametrize(("cls", "name"), fields_of("this"))
def test_a_path_of_this_machine(cls, name, home):
    here = home.parent / "here"
    for folder in (here, home) if name == "image_folder" and cls is Evaluate else ():
        (folder / "in" / "x").unlink()
        (folder / "in" / "x").mkdir()
    spelled = {"in/x": here, "./in/x": here, "~/in/x": home, str(home / "in/x"): home}
    for value, folder in spelled.items():
        assert given_to_a_run(cls, name, value) == str(folder / "in/x"), value


@pytest.mark.parametrize(("cls", "name"), fields_of("another"))
def test_a_path_of_a_node_or_container(cls, name):
    is_list = typing.get_origin(FIELDS[cls, name]) is list
    for value in ("/opt/x", "x", "./x"):
        given = [value] if is_list else value
        assert check_value(FIELDS[cls, name], given, name) == given
    with pytest.raises(RecipeError, match=rf"^executor\.{name}=.*~/x.*: expected .*\(~ stands for nothing there\)"):
        build(config(cls, **{name: ["~/x"] if is_list else "~/x"}))


def test_a_profile_with_the_home_folder_in_the_path_of_a_node(home):
    """It would be queued, and fail on the node."""
    Path("executors.toml").write_text('[lab]\nkind = "slurm"\npartition = "main"\npython = "~/venv/bin/python"\n')
    with pytest.raises(RecipeError, match=r"^executors\.toml, line 4: \[lab\] python='~/venv/bin/python': expected"):
        find_executor("lab")


# What `nemo-run` and Python do with a folder of runs, or a file, that is written with ~ where no shell has seen it.
def test_folders_of_runs(home):
    for words in (["status"], ["gc", "--yes"], ["llava.finetune", "size=tiny", "--dry-run"]):
        assert main([*words, "--runs-dir=~/runs"]) == 0
    recipe = llava.finetune("tiny")
    assert executors.plan_job(recipe, runs_dir="~/runs").run_dir.parent == home / "runs"
    planned = plan_pipeline(Pipeline("p", Stage("a", recipe)), LocalExecutor(), runs_dir="~/runs")
    assert planned.job.run_dir.parent == home / "runs"
    assert list_runs("~/runs") == find_leftovers("~/runs") == []
    with pytest.raises(RunError, match=r"^runs_dir=~nobody-here/runs: there is no such user"):
        executors.plan_job(recipe, runs_dir="~nobody-here/runs")
    assert main(["status", "--runs-dir=~nobody-here/runs"]) == 2
    assert not list(Path().rglob("~*"))


def test_files_of_recipes(home, capsys):
    (home / "mine.yaml").write_text(recipe_to_yaml(gpt.pretrain("tiny")))
    (home / "lab.py").write_text(
        "import fiddle as fdl\nfrom neva_recipes import gpt\nfrom neva_recipes.config import Recipe\n\n\n"
        "def mine() -> fdl.Config[Recipe]:\n    return gpt.pretrain('tiny')\n"
    )
    assert recipe_to_yaml(load_recipe("~/mine.yaml")) == recipe_to_yaml(find_recipe("mine", "~/lab.py").make())
    for words in (
        ["~/mine.yaml", "--dry-run"],
        ["mine", "--recipes=~/lab.py", "--dry-run"],
        ["diff", "mine", "~/mine.yaml", "--recipes=~/lab.py"],
        ["list", "--recipes=~/lab.py"],
        ["fit", "mine", "--gpus=1", "--recipes=~/lab.py"],
        ["executors", "--recipes=~/lab.py"],
    ):
        assert main(words) == 0, capsys.readouterr().err


@pytest.mark.parametrize("home_is", ["{home}", "~"])
def test_a_checkpoint_to_go_on_from(home, home_is):
    folder = home / "runs" / "a" / "checkpoints" / "step-00000004"
    folder.mkdir(parents=True)
    (folder / "checkpoint.json").write_text("{}")
    wanted = f"{home_is.format(home=home)}/runs/a/checkpoints/step-00000004"
    assert find_earlier(home / "runs" / "a", wanted) == folder


def test_every_flag_that_takes_a_path(monkeypatch):
    taken: dict[str, object] = {}
    add = StrictParser.add_argument

    def noted(self, *names, **options):
        if re.search(r"\b(file|folder|directory)\b", str(options.get("help")), re.IGNORECASE):
            taken[f"{self.prog} {names[0]}"] = options.get("type")
        return add(self, *names, **options)

    monkeypatch.setattr(StrictParser, "add_argument", noted)
    for command in ("chat", "evaluate", "export", "import-nemo", "diff", "list", "fit", "executors", "gpt.pretrain"):
        assert main([command, "--help"]) == 0
    names_of_runs = {flag for flag in taken if flag.endswith(" run")}  # a run goes by its name, and by its path too
    assert len(taken) - len(names_of_runs) >= 12
    for flag in taken.keys() - names_of_runs:
        kind = taken[flag]
        assert callable(kind) and kind("~/x") == path_argument("~/x") == Path.home() / "x", flag
        with pytest.raises(argparse.ArgumentTypeError):
            kind("")
