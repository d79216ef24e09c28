"""One world and one finished run in it, shared by the tests."""

from pathlib import Path

import pytest

from tests.end_to_end.world import HOSTILE, World, check_success, make_world, nemo_run

RUNS = f"runs {HOSTILE}"


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    """Data, pictures and tokenizers whose every name needs quoting."""
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def finished(world) -> Path:
    """The directory of a finished run of stage 2, started with relative paths."""
    name = f"run {HOSTILE}".replace("/", "")
    words = world.tiny(checkpoint__every_n_train_steps=2, checkpoint__save_top_k=-1)
    done = nemo_run("llava.finetune", *words, "--name", name, "--runs-dir", RUNS, cwd=world.folder)
    (run,) = (world.folder / RUNS).iterdir()
    check_success(done.stderr, run, str(run), RUNS)
    assert run.name.startswith(f"{name}-")
    return run
