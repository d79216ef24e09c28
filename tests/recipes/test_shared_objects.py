"""Recipes, stages and points that are made of the same Python objects: each owns its values all the same."""

import copy
import json
import sys

import pytest

from executors import LocalExecutor, Pipeline, Stage, plan_pipeline
from executors.registry import find_executor
from neva_recipes import gpt
from neva_recipes.cli.commands.pipeline import make_pipeline, make_sweep
from neva_recipes.cli.main import main
from neva_recipes.cli.opening import make_recipe
from neva_recipes.config import RecipeError, build, recipe_from_yaml, replaced_values, with_absolute_inputs
from neva_recipes.inspection import inspect_recipe
from neva_recipes.registry import find_pipeline, find_recipe
from neva_recipes.sweep import sweep

RECIPES = """
import fiddle as fdl
import register
from common import HOUSE
from executors import Pipeline, Stage
from executors.docker.executor import DockerExecutor
from neva_recipes.sweep import sweep
from neva_recipes import gpt
from neva_recipes.config import OptimConfig, Recipe, config

BASE = gpt.pretrain("tiny")
DATA = gpt.pretrain("tiny").data
MODULES = ["mlp"]
PLACE = config(DockerExecutor, image="a:1")


class House:
    OPTIM = config(OptimConfig, lr=3e-4)


def branch(warm: bool = False) -> fdl.Config[Recipe]:
    recipe = gpt.pretrain("tiny")
    recipe.optim, recipe.data = HOUSE, DATA
    if warm:
        recipe.optim.warmup_steps = 7
    return recipe


def plain_branch() -> fdl.Config[Recipe]:
    recipe = gpt.pretrain("tiny")
    recipe.optim, recipe.data = HOUSE, DATA
    return recipe


def attribute(warm: bool = False) -> fdl.Config[Recipe]:
    recipe = gpt.pretrain("tiny")
    recipe.optim = House.OPTIM
    if warm:
        recipe.optim.warmup_steps = 7
    return recipe


def whole(warm: bool = False) -> fdl.Config[Recipe]:
    if warm:
        BASE.optim.warmup_steps = 7
    return BASE


def default(warm: bool = False, kept: fdl.Config = config(OptimConfig)) -> fdl.Config[Recipe]:
    recipe = gpt.pretrain("tiny")
    recipe.optim = kept
    if warm:
        kept.warmup_steps = 7
    return recipe


def lists(seed: int = 1, more: list = []) -> fdl.Config[Recipe]:
    recipe = gpt.pretrain("tiny")
    MODULES.append("core_attn")
    more.append("layernorm")
    recipe.model.recompute_granularity, recipe.model.recompute_modules = "selective", MODULES
    recipe.model.recompute_modules += more
    recipe.trainer.seed = seed
    return recipe


def registered() -> fdl.Config[Recipe]:
    from towers import TOWERS  # which registers itself once, when it is first imported

    recipe = gpt.pretrain("tiny")
    recipe.trainer.seed = TOWERS["small"]()
    return recipe


def two() -> Pipeline:
    return Pipeline("two", Stage("a", BASE) >> Stage("b", BASE))


TWO = two()


def same_two() -> Pipeline:
    return TWO


def tried() -> Pipeline:
    def points():
        recipe = gpt.pretrain("tiny")
        for lr in ("1e-3", "1e-4"):
            recipe.optim.lr = float(lr)
            yield {"optim.lr": lr}, recipe

    return sweep("tried", points())


def small_place() -> fdl.Config[DockerExecutor]:
    PLACE.cpus = 1
    return PLACE


def place() -> fdl.Config[DockerExecutor]:
    return PLACE
"""

KEPT = """
import functools
import fiddle as fdl
import elsewhere
from neva_recipes import gpt
from neva_recipes.config import Recipe

IN_LAMBDA = (lambda kept: lambda: kept)(gpt.pretrain("tiny"))
IN_PARTIAL = functools.partial(lambda kept: kept, gpt.pretrain("tiny"))
made_late = None


class Lab:
    made_late = None

    def __init__(self):
        self.kept, self.rate = gpt.pretrain("tiny"), 1e-3

    @classmethod
    @functools.lru_cache(maxsize=4)
    def cached(cls):
        return gpt.pretrain("tiny")

    @functools.cached_property
    def later(self):
        return gpt.pretrain("tiny")


class Slim:
    __slots__ = ("kept",)


LAB, SLIM, TABLE = Lab(), Slim(), {"small": {"recipe": gpt.pretrain("tiny")}}
SLIM.kept = gpt.pretrain("tiny")


@functools.cache
def _cached():
    return {"recipe": gpt.pretrain("tiny")}


def _instance():
    LAB.kept.optim.lr, LAB.rate = LAB.rate, 2 * LAB.rate
    return LAB.kept


def _name():
    global made_late
    made_late = made_late or gpt.pretrain("tiny")
    return made_late


def _class_name():
    Lab.made_late = Lab.made_late or gpt.pretrain("tiny")
    return Lab.made_late


def _attribute():
    return _attribute.kept


_attribute.kept = gpt.pretrain("tiny")


def _closure():
    kept = None

    def give():
        nonlocal kept
        kept = kept or gpt.pretrain("tiny")
        return kept

    return give


PLACES = (IN_LAMBDA, IN_PARTIAL, lambda: TABLE["small"]["recipe"], lambda: SLIM.kept, lambda: _cached()["recipe"])
PLACES += (_instance, _name, _class_name, _attribute, _closure(), Lab.cached, lambda: LAB.later, lambda: elsewhere.BASE)


def kept(place: int, seed: int = 1) -> fdl.Config[Recipe]:
    recipe = PLACES[place]()
    recipe.optim.lr *= 2
    recipe.trainer.max_steps += 1
    recipe.trainer.seed = seed
    return recipe


@functools.cache
def cached_itself(seed: int = 1) -> fdl.Config[Recipe]:
    return kept(0, seed)
"""

ONE_BRANCH = ("branch", "attribute", "whole", "default")


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "common.py").write_text(
        "from neva_recipes.config import OptimConfig, config\nHOUSE = config(OptimConfig, lr=3e-4)\n"
    )
    (tmp_path / "lab.py").write_text(RECIPES)
    (tmp_path / "register.py").write_text("TOWERS = {}\n")
    (tmp_path / "towers.py").write_text("from register import TOWERS\nTOWERS['small'] = lambda: 5\n")
    (tmp_path / "text.txt").write_text("a line\n")
    (tmp_path / "folder" / "recipes").mkdir(parents=True)
    (tmp_path / "folder" / "recipes" / "kept.py").write_text(KEPT)
    (tmp_path / "folder" / "elsewhere.py").write_text('from neva_recipes import gpt\nBASE = gpt.pretrain("tiny")\n')
    monkeypatch.syspath_prepend(tmp_path / "folder")
    for name in ("common", "register", "towers", "elsewhere"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "lab.py"


def trained(planned):
    """Return what the run of each stage will read, with what the table calls it."""
    jobs = planned.stage_jobs(planned.job.run_dir)
    recipes = [build(recipe_from_yaml(job.recipe_yaml)) for job in jobs]
    return [(recipe, entry.stage.settings) for recipe, entry in zip(recipes, planned.stages, strict=True)]


def planned_sweep(lab, name, **overrides):
    entry = find_recipe(name, lab)
    found = make_sweep(
        name, {key.replace("__", "."): v for key, v in overrides.items()}, lambda o: make_recipe(entry, o)
    )
    return plan_pipeline(found, LocalExecutor(), runs_dir=lab.parent / "runs")


@pytest.mark.parametrize("name", ONE_BRANCH)
def test_every_point_of_a_sweep_trains_what_the_table_says(lab, name):
    for recipe, settings in trained(planned_sweep(lab, name, optim__lr="1e-3,1e-4,1e-5")):
        assert recipe.optim.lr == float(settings["optim.lr"])
    # What one call has set is not there at the next one, nor is what the command line has set.
    plain, warm, plain_again = (
        make_recipe(find_recipe(name, lab), {"warm": text, **more})
        for text, more in (("false", {}), ("true", {"optim.lr": "0.5"}), ("false", {}))
    )
    assert build(warm).optim.warmup_steps == 7 != build(plain).optim.warmup_steps
    assert build(plain) == build(plain_again)
    assert [set(replaced_values(one)) for one in (plain, warm, plain_again)] == [set(), {"optim.lr"}, set()]


@pytest.mark.parametrize("place", range(13))
def test_what_a_call_changes_is_undone_wherever_it_is_kept(lab, place):
    file = lab.parent / "folder" / "recipes" / "kept.py"
    plain, rate = build(gpt.pretrain("tiny")), 1e-3 if place == 5 else build(gpt.pretrain("tiny")).optim.lr
    for recipe, settings in trained(planned_sweep(file, "kept", place=str(place), seed="1,2,3")):
        assert (recipe.optim.lr, recipe.trainer.max_steps) == (2 * rate, plain.trainer.max_steps + 1)
        assert recipe.trainer.seed == int(settings["seed"])
    again = [build(make_recipe(find_recipe("kept", file), {"place": str(place), **m})) for m in ({"optim.lr": "9"}, {})]
    assert [recipe.optim.lr for recipe in again] == [9, 2 * rate]


def test_a_recipe_function_with_a_cache_round_it(lab):
    entry = find_recipe("cached_itself", lab.parent / "folder" / "recipes" / "kept.py")
    first, second = (entry.make({"seed": "7"}) for _ in range(2))
    assert first is not second and build(first) == build(second) and build(first).trainer.seed == 7


def test_lists_that_functions_add_to(lab):
    for recipe, _ in trained(planned_sweep(lab, "lists", seed="1,2,3")):
        assert recipe.model.recompute_modules == ["mlp", "core_attn", "layernorm"]


def test_what_registers_itself_stays_registered(lab):
    for _ in range(2):
        assert build(find_recipe("registered", lab).make()).trainer.seed == 5


def test_diff_tells_recipes_apart_that_share_a_branch(lab, capsys):
    def changes(*words):
        assert main(["diff", *words, "--recipes", str(lab), "--format", "json"]) == 0
        return {c["path"]: (c["old"], c["new"]) for c in json.loads(capsys.readouterr().out)["changes"]}

    assert changes("plain_branch", "branch", "warm=true") == {"optim.warmup_steps": (None, 7)}
    assert changes("branch", "plain_branch", "optim.lr=0.5") == {"optim.lr": (3e-4, 0.5)}
    assert changes("branch", "plain_branch") == {}
    for name in ONE_BRANCH:
        assert set(changes(name, "optim.lr=0.5", "data.micro_batch_size=2")) == {"optim.lr", "data.micro_batch_size"}


@pytest.mark.parametrize("name", ["two", "same_two"])
def test_one_config_in_two_stages(lab, name):
    entry = find_pipeline(name, lab)
    pipelines = [make_pipeline(entry, words) for words in ({"a.optim.lr": "0.5"}, {"b.optim.lr": "0.25"})]
    rates = [[build(stage.work).optim.lr for stage in pipeline.stages] for pipeline in pipelines]
    kept = build(gpt.pretrain("tiny")).optim.lr
    assert rates == [[0.5, kept], [kept, 0.25]]
    assert [before.name for before in pipelines[1].after(pipelines[1].stage("b"))] == ["a"]


def test_a_stage_and_a_plan_keep_what_they_were_given(tmp_path):
    recipe, settings = gpt.pretrain("tiny"), {"optim.lr": "0.5"}
    recipe.optim.lr = 0.5
    stage, inspection = Stage("a", recipe, settings), inspect_recipe(recipe)
    resolved = with_absolute_inputs(recipe)
    recipe.optim.lr, settings["optim.lr"] = 0.25, "0.25"
    planned = plan_pipeline(Pipeline("p", stage), LocalExecutor(), runs_dir=tmp_path)
    stage.work.optim.lr = 0.125
    ((trains, says),) = trained(planned)
    assert (trains.optim.lr, says) == (0.5, {"optim.lr": "0.5"})
    assert planned.stages[0].plan.recipe.optim.lr == inspection.recipe.optim.lr == 0.5
    assert resolved.optim.lr == 0.5


def test_a_list_that_holds_one_recipe_several_times(lab):
    recipe, points = gpt.pretrain("tiny"), []
    for lr in ("1e-3", "1e-4"):
        recipe.optim.lr = float(lr)
        points.append(({"optim.lr": lr}, recipe))
    with pytest.raises(RecipeError, match=r"^sweep lr: point 1 says optim\.lr=1e-3, and its recipe holds 0\.0001:"):
        sweep("lr", points)
    # Where a table names no field, recipes that are equal give it away.
    planned = plan_pipeline(sweep("lr", [({"variant": s["optim.lr"]}, r) for s, r in points]), LocalExecutor())
    assert "2 (variant=1e-4): trains what 1 (variant=1e-3) trains, for their recipes are equal" in planned.problems
    apart = [({"variant": lr}, copy.deepcopy(recipe)) for lr in ("a", "b")]
    apart[0][1].optim.lr = 0.5
    assert not any("trains what" in line for line in plan_pipeline(sweep("lr", apart), LocalExecutor()).problems)


def test_the_table_says_what_an_override_has_made_of_the_points(lab):
    def points(words):
        return trained(plan_pipeline(make_pipeline(find_pipeline("tried", lab), words), runs_dir=lab.parent / "runs"))

    assert [(r.optim.lr, s) for r, s in points({})] == [(1e-3, {"optim.lr": "1e-3"}), (1e-4, {"optim.lr": "1e-4"})]
    changed = points({"2.optim.lr": "0.5"})
    assert [(r.optim.lr, s) for r, s in changed] == [(1e-3, {"optim.lr": "1e-3"}), (0.5, {"optim.lr": "0.5"})]


def test_profiles_that_share_a_config(lab):
    small, plain = (find_executor(name, {}, recipes=lab) for name in ("small_place", "place"))
    assert (small.cpus, plain.cpus) == (1, None)
    changed = find_executor("place", {"image": "b:2"}, recipes=lab)
    assert (changed.image, find_executor("place", {}, recipes=lab).image) == ("b:2", "a:1")


def test_a_recipe_inside_of_itself_is_refused():
    recipe = gpt.pretrain("tiny")
    recipe.optim = recipe
    with pytest.raises(RecipeError, match=r"^optim=Recipe: expected OptimConfig$"):
        build(recipe)
