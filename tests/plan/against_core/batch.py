"""One process that imports Megatron-Core once and forks the ranks of many cases.

`python -m tests.plan.against_core.batch RECIPES VERDICTS` reads a pickled list of recipes and writes a pickled list of
`Verdict`. Importing takes longer than everything else a case does; this process computes nothing itself, because
threads do not survive a fork.
"""

import gc
import math
import multiprocessing
import os
import pickle
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from neva_model.startup import prepare_process
from neva_recipes.config import Recipe
from neva_recipes.plan.cost.sizes import devices_per_node
from tests.plan.against_core.core import Verdict

prepare_process()

# Core is imported after it is prepared.
from tests.plan.against_core.differences import differences, in_one_process  # noqa: E402
from tests.plan.against_core.rank import Measured, train  # noqa: E402

_RANKS_AT_ONCE = 4
_SECONDS_PER_CASE = 600.0


class Job:
    """The ranks of one recipe, forked from this process.

    Attributes:
        failure: What the first rank that failed says, or that they hang; `None` if all ended well.
        measured: What each rank saw, if all ended well.
    """

    def __init__(self, recipe: Recipe, directory: Path) -> None:
        self.recipe = recipe
        self.world_size = recipe.trainer.num_nodes * devices_per_node(recipe)
        self.failure: str | None = None
        self.measured: list[Measured] = []
        self._directory = directory
        self._ranks: list[BaseProcess] = []
        self._deadline = math.inf

    def start(self) -> None:
        self._directory.mkdir()
        self._deadline = time.monotonic() + _SECONDS_PER_CASE
        context = multiprocessing.get_context("fork")
        for rank in range(self.world_size):
            process = context.Process(target=_run_rank, args=(self.recipe, rank, self.world_size, self._directory))
            process.start()
            self._ranks.append(process)

    @property
    def sentinels(self) -> list[int]:
        return [process.sentinel for process in self._ranks if process.exitcode is None]

    def finish(self) -> bool:
        """Return whether all ranks have ended; the first that fails ends them all, and so does the deadline."""
        codes = [process.exitcode for process in self._ranks]
        if any(codes):
            self.failure = self._first_failure()
        elif None not in codes:
            files = [self._directory / f"measured-{rank}" for rank in range(self.world_size)]
            self.measured = [pickle.loads(file.read_bytes()) for file in files]
        elif time.monotonic() > self._deadline:
            self.failure = f"hangs: not done after {_SECONDS_PER_CASE:.0f} s"
        else:
            return False
        for process in self._ranks:
            process.kill()
            process.join()
        shutil.rmtree(self._directory)
        return True

    def _first_failure(self) -> str:
        # A rank that raises breaks the connections of the others a little later; names begin with the moment.
        files = sorted(self._directory.glob("failure-*"))
        return files[0].read_text() if files else f"exit codes {[process.exitcode for process in self._ranks]}"


def _run_rank(recipe: Recipe, rank: int, world_size: int, directory: Path) -> None:
    log = os.open(directory / f"log-{rank}", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        measured = train(recipe, rank, world_size, directory)
    except BaseException as error:  # noqa: BLE001 whatever Core does to a wrong recipe is the answer
        moment = time.monotonic_ns()
        unfinished = directory / f"unfinished-{rank}"
        unfinished.write_text(f"{type(error).__name__}: {' '.join(str(error).split())}"[:600])
        unfinished.rename(directory / f"failure-{moment:020}-{rank}")
        os._exit(1)
    (directory / f"measured-{rank}").write_bytes(pickle.dumps(measured))
    os._exit(0)


def run(jobs: Iterable[Job]) -> None:
    """Run jobs, a few at once, until all have ended."""
    waiting, running = deque(jobs), list[Job]()
    while waiting or running:
        busy = sum(job.world_size for job in running)
        while waiting and (not busy or busy + waiting[0].world_size <= _RANKS_AT_ONCE):
            job = waiting.popleft()
            job.start()
            busy += job.world_size
            running.append(job)
        wait([sentinel for job in running for sentinel in job.sentinels], timeout=1.0)
        running = [job for job in running if not job.finish()]


def judge(recipes: list[Recipe], directory: Path) -> list[Verdict]:
    """Return what happens to each recipe; those that run are compared with the same training in one process."""
    jobs = [Job(recipe, directory / str(number)) for number, recipe in enumerate(recipes)]
    run(jobs)
    references: dict[str, Job] = {}
    for job in jobs:
        if job.failure is None:
            recipe = in_one_process(job.recipe)
            references.setdefault(repr(recipe), Job(recipe, directory / f"reference-{len(references)}"))
    run(references.values())
    return [_verdict(job, references) for job in jobs]


def _verdict(job: Job, references: dict[str, Job]) -> Verdict:
    if job.failure is not None:
        return Verdict(job.failure)
    reference = references[repr(in_one_process(job.recipe))]
    if reference.failure is not None:
        return Verdict(f"in one process: {reference.failure}")
    reason = "; ".join(differences(job.recipe, job.measured, reference.measured[0]))
    return Verdict(reason, tuple(job.measured[0].losses), tuple(job.measured[0].grad_norms))


def main(arguments: list[str]) -> None:
    source, target = map(Path, arguments)
    # Pages that no collection touches stay shared with the ranks.
    gc.collect()
    gc.freeze()
    with tempfile.TemporaryDirectory() as directory:
        verdicts = judge(pickle.loads(source.read_bytes()), Path(directory))
    target.write_bytes(pickle.dumps(verdicts))


if __name__ == "__main__":
    main(sys.argv[1:])
