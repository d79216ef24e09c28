"""Real runs for the training tests: the digits data set, and workers started as an executor starts them."""

import contextlib
import importlib.util
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fiddle as fdl
import pytest
import torch

from neva_recipes import llava
from neva_recipes.config import Recipe, build, recipe_to_yaml, set_field
from neva_recipes.plan import layout_of
from tests.training.warm_rank import WarmRank, WarmRanks

WARM = WarmRanks()
"""Starts the ranks of runs that any process may be."""

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "digits" / "prepare.py"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Several would wait for each other, spinning, wherever the machine has other things to do."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits example's data."""
    spec = importlib.util.spec_from_file_location("prepare", EXAMPLE)
    prepare = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(prepare)
    directory = tmp_path_factory.mktemp("digits")
    prepare.main(directory)
    return directory


@pytest.fixture(scope="session")
def make_recipe(digits: Path) -> Callable[..., fdl.Config[Recipe]]:
    """A function that returns a tiny recipe on the digits with some fields changed (`optim__lr` is `optim.lr`)."""

    def make(stage: str = "finetune", **fields: object) -> fdl.Config[Recipe]:
        recipe = getattr(llava, stage)(size="tiny")
        settings: dict[str, object] = {
            "data__data_path": digits / f"{stage}.json",
            "data__image_folder": digits / "images",
            "data__tokenizer": digits / "tokenizer",
            "data__num_workers": 0,
            "data__global_batch_size": 8,
            "data__micro_batch_size": 2,
            "model__language__vocab_size": 640,
            "model__language__num_layers": 2,
            "model__vision__num_layers": 2,
            "trainer__log_every_n_steps": 1,
            "trainer__max_steps": 10,
            "optim__lr": 1e-3,
        }
        for name, value in {**settings, **fields}.items():
            set_field(recipe, name.replace("__", "."), str(value))
        return recipe

    return make


def first_free_port(count: int) -> int:
    """The first of so many free ports in a row, outside the range that the system gives away by itself."""
    while True:
        first = random.randrange(20000, 30000)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first


class Worker:
    """All ranks of one run, or of several that are trained one after the other."""

    def __init__(
        self,
        recipe: fdl.Config[Recipe],
        run_directory: Path,
        *,
        pause: tuple[int, *tuple[str, ...]] | None = None,
        port: int | None = None,
        prefix: tuple[str, ...] = (),
        python: str = sys.executable,
        **others: fdl.Config[Recipe],
    ) -> None:
        """Start the worker on `run_directory`, and on others beside it, named after their recipes.

        With `pause`, a rank and patterns, that rank of the one run stops itself at a moment (see paused_worker.py).
        The ranks meet at a free port unless one is given. `prefix` is what runs the command of each rank,
        `python` the interpreter that it is for.
        """
        self.run_directory = run_directory
        runs = {run_directory: recipe} | {run_directory.parent / name: other for name, other in others.items()}
        self.run_directories = list(runs)
        for directory, wanted in runs.items():
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "recipe.yaml").write_text(recipe_to_yaml(wanted))
        world_size = max(layout_of(build(wanted)).world_size for wanted in runs.values())
        module = "tests.training.several_runs" if others else "neva_model.worker"
        pausing = {}
        if pause is not None:
            module = "tests.training.paused_worker"
            pausing = {"PAUSE_RANK": str(pause[0]), "PAUSE_AT": "\n".join(pause[1:])}
        self.port = port = first_free_port(len(runs)) if port is None else port
        self.processes: list[subprocess.Popen[bytes] | WarmRank] = []
        for rank in range(world_size):
            environment = {
                **os.environ,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(world_size),
                "LOCAL_WORLD_SIZE": str(world_size),
                "NODE_RANK": "0",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",
                **pausing,
            }
            log = run_directory / f"rank-{rank}.log"
            if not (prefix or pause) and python == sys.executable and WARM.can_start():
                self.processes.append(WARM.start(module, [*map(str, runs)], environment, log))
                continue
            command = [*prefix, python, "-m", module, *map(str, runs)]
            with log.open("ab") as output:
                self.processes.append(
                    subprocess.Popen(
                        command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
                    )
                )

    def log(self) -> str:
        """What all ranks of all runs have printed."""
        return "".join(path.read_text() for run in self.run_directories for path in sorted(run.glob("rank-*.log")))

    def kill(self) -> None:
        """SIGKILL every rank and what it has started."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def wait(self, timeout: float = 900) -> int:
        """The first non-zero exit code, or zero; a failing rank ends the others, as an executor does."""
        try:
            codes = [process.wait(timeout) for process in self.processes[:1]]
            if codes[0]:
                self.kill()
            codes += [process.wait(timeout) for process in self.processes[1:]]
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"not done after {timeout} s:\n{self.log()}") from None
        return next((code for code in codes if code), 0)


@pytest.fixture(scope="session")
def start_worker() -> Callable[..., Worker]:
    """Start the worker of a recipe in a run directory."""
    return Worker


@pytest.fixture(scope="session")
def train(start_worker: Callable[..., Worker]) -> Callable[..., Path]:
    """Run a recipe to its end, and others after it in the same processes; return the first one's run directory."""

    def run(recipe: fdl.Config[Recipe], run_directory: Path, **others: fdl.Config[Recipe]) -> Path:
        worker = start_worker(recipe, run_directory, **others)
        assert worker.wait() == 0, worker.log()
        return run_directory

    return run
