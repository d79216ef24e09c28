"""How long many submissions to a Slurm cluster take: 100 runs, a sweep of 200 points, and a look at how they stand.

    python benchmarks/submissions.py                            # starts the cluster of the tests, which needs root
    SLURM_CONF=FILE python benchmarks/submissions.py            # a cluster that runs

Everything is submitted with --hold and cancelled at the end: jobs that run would take the cores that are measured.
Programs of Slurm are called through a wrapper that counts the calls and times sbatch. Memory is the largest resident
size of the process, as the kernel counts it. The exit code is 1 if a requirement is missed.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sentencepiece

import executors
from executors.slurm import SlurmExecutor
from neva_recipes import llava
from neva_recipes.cli._opening import make_recipe
from neva_recipes.cli._pipeline import make_sweep
from neva_recipes.config import set_field
from neva_recipes.registry import find_recipe

SCRIPTS = Path(__file__).parent.parent / "tests" / "testbed" / "slurm"
PROGRAMS = ("sbatch", "squeue", "sacct", "sinfo", "scontrol")
RUNS, POINTS, REPEATS = 100, 200, 3

MOST_SECONDS_OF_RUNS, MOST_SECONDS_OF_A_SUBMISSION = 3.0, 1.0

WRAPPER = """#!/bin/sh
before=$(date +%s.%N)
{real} "$@"
code=$?
echo "{name} $before $(date +%s.%N)" >>{calls}
exit $code
"""


@dataclass(frozen=True)
class Measured:
    """What one command or call took.

    Attributes:
        seconds: Wall time.
        calls: How often each program of Slurm was called.
        sbatch_seconds: Wall time of the calls of sbatch.
        mib: Largest resident size of a command; none of a call in this process.
    """

    seconds: float
    calls: Counter[str]
    sbatch_seconds: float
    mib: float | None = None


class Calls:
    """Wrappers of Slurm's programs, first on PATH, that write down their calls.

    Args:
        folder: Where to put them.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "calls"
        programs = folder / "programs"
        programs.mkdir()
        for name in PROGRAMS:
            text = WRAPPER.format(real=shutil.which(name), name=name, calls=self._file)
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        os.environ["PATH"] = f"{programs}:{os.environ['PATH']}"

    def clear(self) -> None:
        """Forget the calls so far."""
        self._file.write_text("")

    def counts(self) -> Counter[str]:
        """Return how often each program was called."""
        return Counter(line.split()[0] for line in self._file.read_text().splitlines())

    def seconds(self, name: str) -> float:
        """Return how long the calls of a program took, one behind the other."""
        lines = (line.split() for line in self._file.read_text().splitlines())
        return sum(float(after) - float(before) for program, before, after in lines if program == name)


def free_port() -> int:
    """Return the first of some neighbouring ports that are free."""
    for port in range(19000, 20000, 30):
        with contextlib.ExitStack() as stack:
            try:
                for number in range(port, port + 20):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", number))
            except OSError:
                continue
            return port
    sys.exit("no ports are free")


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """Have a cluster: the one that SLURM_CONF names, or that of the tests."""
    if "SLURM_CONF" in os.environ:
        yield
        return
    path = folder / "slurm"
    path.mkdir()
    try:
        subprocess.run([SCRIPTS / "start.sh", path, str(free_port())], check=True)
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


def timed_command(calls: Calls, *words: str, cwd: Path) -> Measured:
    """Run `nemo-run` and return what it took."""
    calls.clear()
    script = str(Path(sys.executable).with_name("nemo-run"))
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, script, *words], cwd=cwd, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"nemo-run {' '.join(words)} exited with {process.returncode}")
    return Measured(seconds, calls.counts(), calls.seconds("sbatch"), usage.ru_maxrss / 1024)


def submit_runs(calls: Calls, folder: Path, data: dict[str, str], executor: SlurmExecutor) -> tuple[Measured, Measured]:
    """Start runs one by one, and return what planning and what starting them took.

    Args:
        calls: Counts the calls of Slurm.
        folder: Where to put the runs.
        data: Overrides of the recipe.
        executor: Where.
    """
    recipe = llava.finetune("tiny")
    for path, text in data.items():
        if "." in path:
            set_field(recipe, path, text)
    calls.clear()
    started = time.perf_counter()
    jobs = [executors.plan_job(recipe, executor, name=f"run {number}", runs_dir=folder) for number in range(RUNS)]
    # Ranks that do nothing: were they started, they would not train.
    jobs = [dataclasses.replace(job, argv=("/bin/true",)) for job in jobs]
    planned = time.perf_counter()
    for job in jobs:
        executors.start_job(job, detach=True)
    ended = time.perf_counter()
    nothing: Counter[str] = Counter()
    return Measured(planned - started, nothing, 0.0), Measured(ended - planned, calls.counts(), calls.seconds("sbatch"))


def sweep_by_parts(calls: Calls, folder: Path, words: dict[str, str], executor: SlurmExecutor) -> dict[str, Measured]:
    """Make, plan and start the sweep in this process, and return what each took."""
    entry = find_recipe("llava.finetune")
    nothing: Counter[str] = Counter()
    calls.clear()
    started = time.perf_counter()
    pipeline = make_sweep("llava.finetune", words, lambda overrides: make_recipe(entry, overrides))
    made = time.perf_counter()
    planned = executors.plan_pipeline(pipeline, executor, runs_dir=folder)
    ready = time.perf_counter()
    executors.start_pipeline(planned, detach=True)
    ended = time.perf_counter()
    return {
        "recipes": Measured(made - started, nothing, 0.0),
        "plans": Measured(ready - made, nothing, 0.0),
        "writing and submission": Measured(ended - ready, calls.counts(), calls.seconds("sbatch")),
    }


def best(measured: list[Measured]) -> Measured:
    """Return the one of median time."""
    return sorted(measured, key=lambda entry: entry.seconds)[(len(measured) - 1) // 2]


def main() -> int:
    """Measure, print a table, and say which requirements are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", metavar="N", type=int, default=REPEATS, help=f"measurements of each ({REPEATS})")
    arguments = parser.parse_args()
    measured: dict[str, list[Measured]] = {}
    with tempfile.TemporaryDirectory() as name, cluster(Path(name)):
        folder = Path(name)
        folder.chmod(0o755)
        data, calls = make_data(folder), Calls(folder)
        held = {"gpu_request": "none", "sbatch": {"hold": ""}}
        points = ",".join(f"{number}e-6" for number in range(1, POINTS + 1))
        words = [*(f"{path}={text}" for path, text in data.items()), f"optim.lr={points}"]
        place = ["--executor", "slurm", "executor.gpu_request=none", "executor.sbatch.hold="]

        def add(what: str, entry: Measured) -> None:
            measured.setdefault(what, []).append(entry)

        try:
            for number in range(arguments.repeats):
                for what, snapshot in (("with", True), ("without", False)):
                    runs_dir = folder / f"runs {number} {what}"
                    planned, started = submit_runs(calls, runs_dir, data, SlurmExecutor(**held, code_snapshot=snapshot))
                    if snapshot:
                        add(f"plans of {RUNS} runs", planned)
                    add(f"start of {RUNS} runs, {what} code", started)
                    if snapshot:
                        status = timed_command(calls, "status", "--runs-dir", str(runs_dir), cwd=folder)
                        add(f"nemo-run status, {RUNS} runs", status)
                runs_dir = folder / f"sweep {number}"
                add(
                    "nemo-run RECIPE --dry-run",
                    timed_command(calls, "llava.finetune", *words[:-1], "--dry-run", cwd=folder),
                )
                sweep = ["llava.finetune", *words, *place, "--sweep", "--detach", "--runs-dir", str(runs_dir)]
                add(f"nemo-run --sweep, {POINTS} points", timed_command(calls, *sweep, cwd=folder))
                add(
                    "nemo-run status SWEEP",
                    timed_command(calls, "status", "llava.finetune.sweep", "--runs-dir", str(runs_dir), cwd=folder),
                )
                parts = sweep_by_parts(
                    calls, folder / f"parts {number}", {**data, "optim.lr": points}, SlurmExecutor(**held)
                )
                for what, entry in parts.items():
                    add(f"  of a sweep: {what}", entry)
                subprocess.run(["scancel", "--user", str(os.getuid())], check=False)
        finally:
            subprocess.run(["scancel", "--user", str(os.getuid())], check=False)
    return report(measured)


def report(measured: dict[str, list[Measured]]) -> int:
    """Print the figures and return 1 if a requirement is missed."""
    print(f"{'':36}{'s: min':>7}{'median':>8}{'max':>7}{'MiB':>5}  calls of Slurm")
    for what, entries in measured.items():
        seconds = [entry.seconds for entry in entries]
        mib = entries[0].mib
        calls = ", ".join(f"{count} {name}" for name, count in entries[0].calls.items())
        print(
            f"{what:36}{min(seconds):7.2f}{statistics.median(seconds):8.2f}{max(seconds):7.2f}"
            f"{'' if mib is None else f'{mib:.0f}':>5}  {calls}"
        )
        if entries[0].sbatch_seconds:
            print(f"{'    sbatch':36}{'':7}{statistics.median(entry.sbatch_seconds for entry in entries):8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
