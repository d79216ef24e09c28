"""How long many submissions to a Slurm cluster take: 100 runs, a sweep of 200 points, how they stand, and their end.

    python benchmarks/submissions.py                            # starts the cluster of the tests, which needs root
    SLURM_CONF=FILE python benchmarks/submissions.py            # a cluster that runs

Everything is submitted with --hold, and all jobs of the user are cancelled at the end: jobs that run would take the
cores that are measured. Wrappers of Slurm's programs count the calls and time sbatch. CPU time is user and system time
with that of children, memory the largest resident size of the command, both as the kernel counts them. The exit code is
1 if a requirement is missed.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import sentencepiece

import executors
from executors.slurm.executor import SlurmExecutor
from neva_recipes.cli.commands.pipeline import make_sweep
from neva_recipes.cli.opening import make_recipe
from neva_recipes.config import Draft, Recipe
from neva_recipes.registry import find_recipe

SCRIPTS = Path(__file__).parent.parent / "tests" / "testbed" / "slurm"
PROGRAMS = ("sbatch", "squeue", "sacct", "scancel", "sinfo", "scontrol")
RECIPE = "llava.finetune"
RUNS, POINTS, REPEATS = 100, 200, 3

MOST_SECONDS_OF_RUNS, MOST_SECONDS_OF_A_SWEEP = 3.0, 1.0

STARTED_RUNS, STARTED_SWEEP = f"{RUNS} runs: start", f"{POINTS} points: write and submit"

WRAPPER = """#!/bin/bash
before=$EPOCHREALTIME
{real} "$@"
code=$?
echo "{name} $before $EPOCHREALTIME" >>{calls}
exit $code
"""


@dataclass(frozen=True)
class Measured:
    """What a command, or a part of one in this process, took.

    Attributes:
        seconds: Wall time.
        cpu_seconds: CPU time, that of children included.
        calls: How often each program of Slurm was called.
        sbatch_seconds: Wall time of the calls of sbatch.
        mib: Largest resident size of a command, in MiB; `None` for what runs in this process.
    """

    seconds: float
    cpu_seconds: float
    calls: Counter[str] = field(default_factory=Counter)
    sbatch_seconds: float = 0.0
    mib: float | None = None


class Stopwatch:
    """Measures, with Slurm's programs behind wrappers that write down their calls.

    Args:
        folder: Where to put these.
    """

    def __init__(self, folder: Path) -> None:
        self._calls = folder / "calls"
        programs = folder / "programs"
        programs.mkdir()
        for name in PROGRAMS:
            text = WRAPPER.format(real=shutil.which(name), name=name, calls=self._calls)
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        os.environ["PATH"] = f"{programs}:{os.environ['PATH']}"

    def call(self, function: Callable[[], Any]) -> tuple[Any, Measured]:
        """Return what a function returns, and what it took."""
        self._calls.write_text("")
        before, started = os.times(), time.perf_counter()
        result = function()
        seconds, after = time.perf_counter() - started, os.times()
        return result, self._measured(seconds, sum(after[:4]) - sum(before[:4]))

    def command(self, *words: str, cwd: Path) -> Measured:
        """Return what `nemo-run` with these words took."""
        self._calls.write_text("")
        command = [sys.executable, str(Path(sys.executable).with_name("nemo-run")), *words]
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"nemo-run {' '.join(words)} exited with {process.returncode}: {errors}")
        return self._measured(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)

    def _measured(self, seconds: float, cpu_seconds: float, mib: float | None = None) -> Measured:
        rows = [line.split() for line in self._calls.read_text().splitlines()]
        in_sbatch = sum(float(after) - float(before) for name, before, after in rows if name == "sbatch")
        return Measured(seconds, cpu_seconds, Counter(row[0] for row in rows), in_sbatch, mib)


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """Have a cluster: the one that SLURM_CONF names, or that of the tests. Jobs are cancelled at the end."""
    if "SLURM_CONF" in os.environ:
        try:
            yield
        finally:
            subprocess.run(["scancel", "--user", str(os.getuid())], check=False)
        return
    folder.chmod(0o755)  # Munge and Slurm want to own or share the way to their files
    path = folder / "slurm"
    path.mkdir()
    try:
        subprocess.run([SCRIPTS / "start.sh", path, "any"], check=True)
        os.environ["SLURM_CONF"] = str(path / "slurm.conf")
        yield
    finally:
        subprocess.run([SCRIPTS / "stop.sh", path], check=False)


def make_data(folder: Path) -> dict[str, str]:
    """Write what a recipe reads, and return its overrides: conversations of 500 samples and their tokenizer."""
    words = ["What colour is this?", "It is red.", "It is green.", "What do you see?", "A blue picture."]
    turns = [{"from": "human", "value": words[0]}, {"from": "gpt", "value": words[1]}]
    samples = [{"id": str(number), "conversations": turns} for number in range(500)]
    (folder / "chats.json").write_text(json.dumps(samples))
    with (folder / "tokens.model").open("wb") as model:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(words * 50),
            model_writer=model,
            vocab_size=320,
            model_type="bpe",
            byte_fallback=True,
            hard_vocab_limit=False,
            minloglevel=2,
        )
    paths = {"data.data_path": folder / "chats.json", "data.tokenizer": folder / "tokens.model"}
    return {"size": "tiny"} | {name: str(path) for name, path in paths.items()}


def start_runs(recipe: Draft[Recipe], executor: SlurmExecutor, runs_dir: Path, watch: Stopwatch) -> Measured:
    """Start runs one by one, of ranks that do nothing, and return what that took once they were planned."""
    jobs = [executors.plan_job(recipe, executor, name=f"run {number}", runs_dir=runs_dir) for number in range(RUNS)]
    jobs = [dataclasses.replace(job, argv=("/bin/true",)) for job in jobs]

    def start() -> None:
        for job in jobs:
            executors.start_job(job, detach=True)

    return watch.call(start)[1]


def measure(folder: Path, watch: Stopwatch) -> dict[str, Measured]:
    """Return what each thing took, by its name.

    Args:
        folder: Where to put the runs.
        watch: What measures.
    """
    data = make_data(folder)
    rates = ",".join(f"{number}e-6" for number in range(1, POINTS + 1))
    overrides = {**data, "optim.lr": rates}
    words = [f"{path}={text}" for path, text in data.items()]
    place = ["--executor", "slurm", "executor.gpu_request=none", "executor.sbatch.hold="]
    make = partial(make_recipe, find_recipe(RECIPE))
    held = SlurmExecutor(gpu_request="none", sbatch={"hold": ""})
    bare = dataclasses.replace(held, code_snapshot=False)

    found = {STARTED_RUNS: start_runs(make(data), held, folder / "runs", watch)}
    found[f"{RUNS} runs: start, without code"] = start_runs(make(data), bare, folder / "bare", watch)
    found[f"{RUNS} runs: nemo-run status"] = watch.command("status", "--runs-dir", "runs", cwd=folder)
    names = [run.name for run in executors.list_runs(folder / "runs")]
    found[f"{RUNS} runs: nemo-run cancel"] = watch.command("cancel", *names, "--runs-dir", "runs", cwd=folder)
    found["1 point: nemo-run --dry-run"] = watch.command(RECIPE, *words, *place, "--dry-run", cwd=folder)
    sweep_words = [*words, f"optim.lr={rates}", *place, "--sweep", "--detach", "--runs-dir", "sweep"]
    found[f"{POINTS} points: nemo-run --sweep"] = watch.command(RECIPE, *sweep_words, cwd=folder)
    pipeline, found[f"{POINTS} points: recipes"] = watch.call(lambda: make_sweep(RECIPE, overrides, make))
    planned, found[f"{POINTS} points: plans"] = watch.call(
        lambda: executors.plan_pipeline(pipeline, held, runs_dir=folder / "parts")
    )
    _, found[STARTED_SWEEP] = watch.call(lambda: executors.start_pipeline(planned, detach=True))
    status = ("status", f"{RECIPE}.sweep", "--runs-dir", "sweep")
    found[f"{POINTS} points: nemo-run status SWEEP"] = watch.command(*status, cwd=folder)
    cancel = ("cancel", f"{RECIPE}.sweep", "--runs-dir", "sweep")
    found[f"{POINTS} points: nemo-run cancel SWEEP"] = watch.command(*cancel, cwd=folder)
    return found


def main() -> int:
    """Measure, print a table, and say which requirements are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", metavar="N", type=int, default=REPEATS, help=f"measurements of each ({REPEATS})")
    arguments = parser.parse_args()
    measured: list[dict[str, Measured]] = []
    with tempfile.TemporaryDirectory() as name, cluster(Path(name)):
        folder = Path(name)
        watch = Stopwatch(folder)
        for number in range(arguments.repeats):
            (folder / str(number)).mkdir()
            measured.append(measure(folder / str(number), watch))
            subprocess.run(["scancel", "--user", str(os.getuid())], check=True)
    return report(measured)


def report(measured: list[dict[str, Measured]]) -> int:
    """Print the figures and return 1 if a requirement is missed."""
    print(f"{'':36}{'s: min':>8}{'median':>8}{'CPU s':>7}{'MiB':>5}  calls of Slurm")
    best: dict[str, Measured] = {}
    for what in measured[0]:
        entries = [figures[what] for figures in measured]
        best[what] = min(entries, key=lambda entry: entry.seconds)
        median = statistics.median(entry.seconds for entry in entries)
        mib = "" if best[what].mib is None else f"{max(entry.mib or 0 for entry in entries):.0f}"
        calls = ", ".join(f"{count} {name}" for name, count in best[what].calls.items())
        if best[what].sbatch_seconds:
            calls += f" ({best[what].sbatch_seconds:.2f} s in sbatch)"
        print(f"{what:36}{best[what].seconds:8.2f}{median:8.2f}{best[what].cpu_seconds:7.2f}{mib:>5}  {calls}")
    arrays = best[STARTED_SWEEP].calls["sbatch"]
    requirements = {
        f"{RUNS} submissions in {MOST_SECONDS_OF_RUNS:g} s": best[STARTED_RUNS].seconds <= MOST_SECONDS_OF_RUNS,
        f"{POINTS} points as one array": arrays == 1,
        f"submitted in {MOST_SECONDS_OF_A_SWEEP:g} s": best[STARTED_SWEEP].seconds <= MOST_SECONDS_OF_A_SWEEP,
    }
    print(f"\n{len(measured)} measurements of each; requirements are of the shortest")
    for requirement, met in requirements.items():
        print(f"{'ok    ' if met else 'MISSED'}  {requirement}")
    return 0 if all(requirements.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
