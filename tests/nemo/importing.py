"""The real `nemo-run import-nemo`, run in an empty folder."""

import shutil
from pathlib import Path

import pytest

from neva_recipes.cli.main import main

CONFIGS = Path(__file__).with_name("configs")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current directory; the tower of launcher.yaml is in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOWER", "/towers/clip-vit-large-patch14-336")
    return tmp_path


@pytest.fixture
def import_nemo(folder, capfd):
    """Return a function that imports a configuration of this folder and returns exit code, stdout and stderr."""

    def call(config, *words):
        shutil.copy(CONFIGS / config, folder / config)
        code = main(["import-nemo", config, *words])
        return code, *capfd.readouterr()

    return call
