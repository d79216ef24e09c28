"""What has been fetched on a machine changes no test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

_LOOKS = """
import os
from huggingface_hub import try_to_load_from_cache
from neva_recipes.plan.huggingface.hub import cached_models, cached_snapshot

def test_finds_nothing():
    assert try_to_load_from_cache("owner/model", "config.json") is None
    assert cached_snapshot("owner/model", cached_models(os.environ)) is None
"""


@pytest.mark.parametrize(("variable", "folder"), [("HF_HOME", "."), ("HF_HUB_CACHE", "hub"), (None, None)])
def test_a_model_that_was_fetched_is_found_only_without_the_settings_of_the_tests(tmp_path, variable, folder):
    model = tmp_path / "hub" / "models--owner--model"
    (model / "snapshots" / "abc").mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("abc")
    (model / "snapshots" / "abc" / "config.json").write_text("{}")
    (tmp_path / "tests" / "looks").mkdir(parents=True)
    (tmp_path / "tests" / "looks" / "test_it.py").write_text(_LOOKS)
    set_to = {"HF_HOME": str(tmp_path)} if variable is None else {variable: str(tmp_path / folder)}
    conftest = [] if variable is None else ["-p", "tests.conftest"]
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, *conftest]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [*words, f"--rootdir={tmp_path}", "tests/looks/test_it.py"],
        cwd=tmp_path,
        env=environment | set_to | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == (1 if variable is None else 0), done.stdout + done.stderr
