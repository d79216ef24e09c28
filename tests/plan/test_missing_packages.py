"""A package that the metrics need and that is not installed is told before anything starts."""

import importlib.util

import pytest

import executors
from neva_recipes import llava
from neva_recipes.config import RecipeError
from neva_recipes.inspection import inspect_recipe

PACKAGES = ("wandb", "bitsandbytes")


@pytest.fixture
def recipe():
    made = llava.finetune("tiny")
    made.logging.wandb_project = "digits"
    return made


@pytest.fixture(params=[True, False], ids=["installed", "missing"])
def is_installed(request, monkeypatch):
    find = importlib.util.find_spec
    spec = find("json") if request.param else None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec if name in PACKAGES else find(name))
    return request.param


@pytest.mark.parametrize(
    ("executor", "is_known"),
    [
        (executors.LocalExecutor(), True),
        (executors.SlurmExecutor(), True),
        (executors.SlurmExecutor(python="/opt/bin/python"), False),
        (executors.SlurmExecutor(container_image="image.sqsh"), False),
        (executors.DockerExecutor(image="image"), False),
    ],
    ids=["local", "slurm", "another Python", "container", "docker"],
)
def test_where_it_is_known(executor, is_known, is_installed, recipe):
    assert executor.lacks("wandb") == (is_known and not is_installed)


def test_it_is_told_before_anything_starts(is_installed, recipe, tmp_path):
    lines = [finding.line() for finding in inspect_recipe(recipe, runs_dir=tmp_path).notes]
    told = [line for line in lines if line.startswith("logging.wandb_project=digits: wandb is not installed")]
    assert len(told) == (not is_installed)
    assert all("set logging.wandb_project=none, or pip install" in line for line in told)
    if not is_installed:
        with pytest.raises(RecipeError, match="wandb is not installed"):
            executors.run(recipe, runs_dir=tmp_path)
        assert list(tmp_path.iterdir()) == []
    recipe.logging.wandb_project = None
    assert not any("wandb" in finding.line() for finding in inspect_recipe(recipe, runs_dir=tmp_path).notes)


def test_the_package_for_4_bits_is_told_too(is_installed, tmp_path):
    lines = [finding.line() for finding in inspect_recipe(llava.qlora("tiny"), runs_dir=tmp_path).notes]
    told = [line for line in lines if "bitsandbytes is not installed" in line]
    assert len(told) == (not is_installed)
    assert all(line.endswith("or pip install 'neva-recipes[qlora]'") for line in told)
