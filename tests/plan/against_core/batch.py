"""One process that imports Megatron-Core once and forks the ranks of many cases.

`python -m tests.plan.against_core.batch RECIPES VERDICTS` reads a pickled list of recipes and writes a pickled list of
`Verdict`. Importing takes longer than everything else a case does; this process computes nothing itself, because
threads do not survive a fork.
"""

import dataclasses
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
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from neva_model.startup import prepare_process
from neva_recipes.config import ParallelConfig, Recipe
from neva_recipes.plan._sizes import devices_per_node
from tests.plan.against_core.core import Verdict

prepare_process()

from tests.plan.against_core.rank import Measured, train  # noqa: E402 Core is imported after it is prepared

_RANKS_AT_ONCE = 4
_SECONDS_PER_CASE = 240.0
_TOLERANCES = {"fp32": 1e-4, "bf16": 2e-2}


class Job:
    """The ranks of one recipe, forked from this process.

    Attributes:
        failure: What the first rank that failed says, or that they hang; none if all ended well.
        measured: What each rank saw, if all ended well.
    """

    def __init__(self, recipe: Recipe, directory: Path, then: Callable[["Job"], None]) -> None:
        self.recipe = recipe
        self.world_size = recipe.trainer.num_nodes * devices_per_node(recipe)
        self.then = then
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
        # A rank that raises breaks the connections of the others a little later.
        files = sorted(self._directory.glob("failure-*"), key=lambda file: file.stat().st_mtime_ns)
        return files[0].read_text() if files else f"exit codes {[process.exitcode for process in self._ranks]}"


def _run_rank(recipe: Recipe, rank: int, world_size: int, directory: Path) -> None:
    log = os.open(directory / f"log-{rank}", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        measured = train(recipe, rank, world_size, directory)
    except BaseException as error:  # noqa: BLE001 whatever Core does to a wrong recipe is the answer
        unfinished = directory / f"unfinished-{rank}"
        unfinished.write_text(f"{type(error).__name__}: {' '.join(str(error).split())}"[:600])
        unfinished.rename(directory / f"failure-{rank}")
        os._exit(1)
    (directory / f"measured-{rank}").write_bytes(pickle.dumps(measured))
    os._exit(0)


def _alone(recipe: Recipe) -> Recipe:
    """Return the same training in one process, one microbatch a step, nothing recomputed."""
    kept_all = {
        "recompute_granularity": None,
        "recompute_method": None,
        "recompute_num_layers": None,
        "recompute_modules": None,
    }
    return dataclasses.replace(
        recipe,
        parallel=ParallelConfig(),
        trainer=dataclasses.replace(recipe.trainer, num_nodes=1, devices=1),
        data=dataclasses.replace(recipe.data, micro_batch_size=recipe.data.global_batch_size),
        model=dataclasses.replace(recipe.model, **kept_all),
    )


class Batch:
    """Cases to run, and what became of them."""

    def __init__(self, recipes: list[Recipe], directory: Path) -> None:
        self.verdicts: list[Verdict | None] = [None] * len(recipes)
        self._directory = directory
        self._number = 0
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._references: dict[str, Job] = {}
        for index, recipe in enumerate(recipes):
            self._add(recipe, lambda job, index=index: self._judge(index, job))

    def _add(self, recipe: Recipe, then: Callable[[Job], None], *, next_one: bool = False) -> Job:
        self._number += 1
        job = Job(recipe, self._directory / str(self._number), then)
        (self._waiting.appendleft if next_one else self._waiting.append)(job)
        return job

    def _judge(self, index: int, job: Job) -> None:
        """Set the verdict on a case that has ended, or have its reference run first."""
        if job.failure is not None:
            self.verdicts[index] = Verdict(job.failure)
            return
        alone = _alone(job.recipe)
        reference = self._references.get(repr(alone))
        if reference is None:
            reference = self._add(alone, lambda _: self._judge(index, job), next_one=True)
            self._references[repr(alone)] = reference
        elif reference.failure is not None or reference.measured:
            self.verdicts[index] = _compare(job, reference)
        else:
            before = reference.then
            reference.then = lambda ended: (before(ended), self._judge(index, job))

    def run(self) -> None:
        while self._waiting or self._running:
            self._start_what_fits()
            wait([sentinel for job in self._running for sentinel in job.sentinels], timeout=1.0)
            for job in [job for job in self._running if job.finish()]:
                self._running.remove(job)
                job.then(job)

    def _start_what_fits(self) -> None:
        busy = sum(job.world_size for job in self._running)
        while self._waiting and (not busy or busy + self._waiting[0].world_size <= _RANKS_AT_ONCE):
            job = self._waiting.popleft()
            busy += job.world_size
            job.start()
            self._running.append(job)


def _compare(job: Job, reference: Job) -> Verdict:
    ours = job.measured[-1]
    losses, grad_norms = tuple(ours.losses), tuple(ours.grad_norms)
    return Verdict("; ".join(_differences(job, reference)), losses, grad_norms)


def _differences(job: Job, reference: Job) -> list[str]:
    """Say in what a training that ran is not the one that the recipe asks for."""
    if reference.failure is not None:
        return [f"in one process: {reference.failure}"]
    found = []
    tolerance = _TOLERANCES[job.recipe.precision.precision]
    for name in ("losses", "grad_norms"):
        theirs = getattr(reference.measured[0], name)
        for rank, measured in enumerate(job.measured):
            ours = getattr(measured, name)
            if not all(math.isclose(*pair, rel_tol=tolerance, abs_tol=1e-6) for pair in zip(ours, theirs, strict=True)):
                found.append(f"{name} {ours} on rank {rank}, {theirs} in one process")
                break
    found += _left_undone(job, reference)
    return found


def _left_undone(job: Job, reference: Job) -> list[str]:
    """Say what a recipe asks for that Core has silently not done."""
    found = []
    if not any(reference.measured[0].grad_norms):
        found.append("nothing is trained")
    model, parallel = job.recipe.model, job.recipe.parallel
    found += _recomputed_otherwise(job, reference)
    if parallel.overlap_param_gather != all(measured.gathers_ahead for measured in job.measured):
        found.append("weights are not gathered while the forward pass goes on")
    language = model.language
    width = language.num_attention_heads * language.kv_channels if language.kv_channels else language.hidden_size
    widths = set().union(*(measured.attention_widths for measured in job.measured))
    if widths != {width}:
        found.append(f"all heads together are {widths} wide, not {width}")
    tokens = set().union(*(measured.tokens_per_image for measured in job.measured))
    if model.vision is not None and model.vision.image_token_len not in (None, *tokens):
        found.append(f"an image makes {tokens} tokens, not {model.vision.image_token_len}")
    return found


def _recomputed_otherwise(job: Job, reference: Job) -> list[str]:
    """Say whether layers are recomputed that should not be, or not as many as asked for."""
    model, parallel, data = job.recipe.model, job.recipe.parallel, job.recipe.data
    asks = (model.recompute_granularity, model.recompute_method, model.recompute_num_layers, model.recompute_modules)
    shared_by = parallel.tensor_model_parallel_size * parallel.context_parallel_size
    needed = reference.measured[0].forwards * (data.global_batch_size // data.micro_batch_size) * shared_by
    ran = sum(measured.forwards for measured in job.measured)
    if any(asks) != (ran > needed):
        return [f"attention and MLP ran {ran} times, {needed} times without recomputation"]
    if model.recompute_method != "block":
        return []
    # Forward passes of one layer on one rank: ranks that share the layers have the same microbatches.
    replicas = job.world_size // (shared_by * parallel.pipeline_model_parallel_size)
    once = needed // (model.language.num_layers * shared_by * replicas)
    most = max(measured.forwards // once - measured.layers for measured in job.measured)
    asked = (model.recompute_num_layers or 0) * (parallel.virtual_pipeline_model_parallel_size or 1)
    return [f"{most} layers of a stage are recomputed, not {asked}"] if most < asked else []


def main(arguments: list[str]) -> None:
    source, target = map(Path, arguments)
    # Pages that no collection touches stay shared with the ranks.
    gc.collect()
    gc.freeze()
    with tempfile.TemporaryDirectory() as directory:
        batch = Batch(pickle.loads(source.read_bytes()), Path(directory))
        batch.run()
    target.write_bytes(pickle.dumps(batch.verdicts))


if __name__ == "__main__":
    main(sys.argv[1:])
