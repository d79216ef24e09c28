"""What a pipeline is, and what is no pipeline."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors import Export, LocalExecutor, Pipeline, Stage, plan_pipeline
from neva_recipes.config import RecipeError, config
from neva_recipes.pipeline import StageOutput
from tests.pipelines.recipes import make_recipe


def stage(name, **inputs):
    """Return a stage that takes what other stages make in the fields that are named."""
    recipe = make_recipe()
    for part, other in inputs.items():
        getattr(recipe.model, part).from_pretrained = StageOutput(other)
    return Stage(name, recipe)


def order(pipeline):
    return {found.name: {before.name for before in pipeline.after(found)} for found in pipeline.stages}


def test_a_row_and_a_fan():
    a, b, c, d = map(stage, "abcd")
    assert order(Pipeline("p", a >> b >> c >> d)) == {"a": set(), "b": {"a"}, "c": {"b"}, "d": {"c"}}
    assert order(Pipeline("p", a >> [b, c] >> d)) == {"a": set(), "b": {"a"}, "c": {"a"}, "d": {"b", "c"}}
    assert order(Pipeline("p", [a, b] >> c, d)) == {"a": set(), "b": set(), "d": set(), "c": {"a", "b"}}
    assert order(Pipeline("p", a >> [b >> c, d])) == {"a": set(), "b": {"a"}, "d": {"a"}, "c": {"b"}}
    assert order(Pipeline("p", a >> b, a >> c)) == {"a": set(), "b": {"a"}, "c": {"a"}}


@given(st.integers(1, 8), st.randoms(use_true_random=False))
def test_every_stage_stands_behind_those_it_waits_for(count, choice: random.Random):
    stages = [Stage(f"s{number}", config(Export, model="m")) for number in range(count)]
    # Edges that go up in some hidden order have no cycle; the pipeline is told of them in another one.
    edges = [(a, b) for a in range(count) for b in range(a + 1, count) if choice.random() < 0.4]
    steps = [*stages, *(stages[a] >> stages[b] for a, b in edges)]
    choice.shuffle(steps)
    pipeline = Pipeline("p", *steps)
    place = {found.name: position for position, found in enumerate(pipeline.stages)}
    assert sorted(place) == sorted(found.name for found in stages)
    assert all(place[f"s{a}"] < place[f"s{b}"] for a, b in edges)


def two_of_a_name():
    return Pipeline("p", stage("a") >> stage("a"))


def cycle():
    a, b, c = map(stage, "abc")
    return Pipeline("p", a >> b >> c >> b)


def own_output():
    return Pipeline("p", stage("a", language="a"))


def unknown_stage():
    return Pipeline("p", stage("first") >> stage("second", language="frist"))


def not_before():
    return Pipeline("p", stage("a"), stage("b", language="a"))


def after_it():
    b = stage("b")
    return Pipeline("p", stage("a", language="b") >> b)


WRONG = {
    two_of_a_name: "two stages are called a: give each a name of its own",
    cycle: "pipeline p: b >> c >> b is a cycle: a stage cannot wait for itself",
    own_output: "a.model.language.from_pretrained=a.output: a does not come before a: write a >> a",
    unknown_stage: "second.model.language.from_pretrained=frist.output: pipeline p has no stage frist "
    "(did you mean first?)",
    not_before: "b.model.language.from_pretrained=a.output: a does not come before b: write a >> b",
    after_it: "a.model.language.from_pretrained=b.output: b does not come before a: write b >> a",
    lambda: Pipeline("p"): "a pipeline is made of stages, flows and lists of them, not of ()",
    lambda: Pipeline("p", stage("a") >> "b"): "a pipeline is made of stages, flows and lists of them, not of 'b'",
    lambda: Pipeline("", stage("a")): "pipeline '': a run needs a name that is not empty",
    lambda: Pipeline("p", stage("a/b")): "stage 'a/b': a run's name cannot hold '/', line breaks or control characters",
    lambda: Pipeline("p", stage("data")): "stage 'data': data.FIELD=VALUE must name a field of that stage alone: "
    "choose a name without dots and = that is no group of a recipe",
    lambda: Pipeline("p", Stage("a", 3)): "stage a: does int: expected a Draft of Recipe, or of a tool such as Export",
}


@pytest.mark.parametrize("make", WRONG, ids=lambda make: make.__name__)
def test_wrong_pipelines_are_one_line(make):
    with pytest.raises(RecipeError) as caught:
        make()
    if make is own_output:  # how to write it would be no help
        assert str(caught.value).startswith(WRONG[make].partition(": write")[0])
    else:
        assert str(caught.value) == WRONG[make]


def test_a_wrong_stage_is_named_before_anything_is_written(tmp_path):
    pipeline = Pipeline("p", stage("a") >> Stage("b", make_recipe(max_steps=0)))
    with pytest.raises(RecipeError, match=r"^b: .*trainer\.max_steps=0"):
        plan_pipeline(pipeline, LocalExecutor(), runs_dir=tmp_path / "runs")
    two_nodes = Pipeline("p", stage("a") >> Stage("b", make_recipe(num_nodes=2)))
    planned = plan_pipeline(two_nodes, LocalExecutor(), runs_dir=tmp_path / "runs")
    (problem,) = planned.not_here
    assert planned.problems == () and problem.startswith("b: ") and "the local executor runs on one machine" in problem
    assert not (tmp_path / "runs").exists()
