"""What a dry run costs, beside the help of a task in NVIDIA's nemo-run 0.11.1.

    python benchmarks/dry_run.py                                # makes the other's virtual environment, then measures
    python benchmarks/dry_run.py --other-environment DIR        # one that is there, with nemo-run and leptonai

Both commands run in turn, each a process of its own, after a first time that compiles and caches. CPU time is user and
system time of the process and its children, memory its largest resident size, both as the kernel counts them. The exit
code is 1 if a requirement is missed.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

OURS = (
    *("llava.finetune", "--dry-run", "trainer.num_nodes=8"),
    # Tensor and pipeline parallelism give the plan something to lay out.
    *("parallel.tensor_model_parallel_size=4", "parallel.sequence_parallel=true"),
    *("parallel.pipeline_model_parallel_size=2", "data.micro_batch_size=2"),
)
"""7B on 64 GPUs."""

PACKAGES = ("nemo-run==0.11.1", "leptonai==0.27.3")
HEAVY = ("torch", "transformers", "megatron", "lightning", "numpy")

MOST_CPU_SECONDS, MOST_MIB, LEAST_RATIO = 0.6, 60, 5

TASK = '''
import nemo_run


@nemo_run.cli.entrypoint(namespace="benchmark")
def train(steps: int = 1, lr: float = 1e-3) -> None:
    """Train nothing."""
'''


@dataclass(frozen=True)
class Cost:
    """What one process took.

    Attributes:
        cpu_seconds: User and system time.
        mib: Largest resident size.
    """

    cpu_seconds: float
    mib: float


def run(command: list[str], environment: dict[str, str], folder: Path) -> Cost:
    """Run a command and return what it took."""
    process = subprocess.Popen(
        command, env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)} exited with {process.returncode}: {errors}")
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def heavy_imports(command: list[str], folder: Path) -> list[str]:
    """Return the heavy packages that our command imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command], capture_output=True, text=True, check=True, cwd=folder
    )
    imported = {name.split(".")[0] for name in re.findall(r"^import time:.*\| +([\w.]+)$", done.stderr, re.MULTILINE)}
    assert "neva_recipes" in imported
    return sorted(imported.intersection(HEAVY))


def make_environment(folder: Path) -> Path:
    """Return a new virtual environment with NVIDIA's nemo-run."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    # It needs no torch; should it ever ask for it, this version has a CPU build.
    (folder / "constraints.txt").write_text("torch==2.13.0\n")
    pip = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", folder / "constraints.txt", *PACKAGES], check=True)
    return folder


def offer_task(folder: Path) -> Path:
    """Return a folder that offers the task to nemorun once it is on the PYTHONPATH, as an installed package would."""
    metadata = folder / "benchmark_task-1.0.dist-info"
    metadata.mkdir(parents=True)
    (folder / "benchmark_task.py").write_text(TASK)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: benchmark-task\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[nemo_run.cli]\nbenchmark = benchmark_task\n")
    return folder


def _path(text: str) -> Path:
    return Path(text).expanduser()


def main() -> int:
    """Measure both, print a table, and say which requirements are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other-environment", metavar="DIR", type=_path, help="virtual environment of nemo-run")
    parser.add_argument("--runs", metavar="N", type=int, default=10, help="measured runs of each (10)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        other = arguments.other_environment or make_environment(folder / "environment")
        task = offer_task(folder / "task")
        empty = folder / "empty"
        empty.mkdir()
        script = str(Path(sys.executable).with_name("nemo-run"))
        ours = [sys.executable, script, *OURS]
        theirs = [str(other.resolve() / "bin" / "nemorun"), "benchmark", "train", "--help"]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = str(folder / "compiled")  # for both, and nothing is left behind
        commands = {
            "nemo-run RECIPE --dry-run": (ours, environment),
            "nemorun TASK --help": (theirs, {**environment, "PYTHONPATH": str(task)}),
        }
        costs: dict[str, list[Cost]] = {what: [] for what in commands}
        for number in range(arguments.runs + 1):
            for what, (command, variables) in commands.items():
                cost = run(command, variables, empty)
                if number > 0:  # the first one compiles and fills the caches
                    costs[what].append(cost)
        heavy = heavy_imports(ours[1:], empty)
    return report(costs, heavy)


def report(costs: dict[str, list[Cost]], heavy: list[str]) -> int:
    """Print the figures and return 1 if a requirement is missed."""
    print(f"{'':28}{'CPU s: min':>12}{'median':>8}{'max':>8}{'MiB: max':>12}")
    medians = []
    for what, measured in costs.items():
        seconds = [cost.cpu_seconds for cost in measured]
        medians.append(statistics.median(seconds))
        largest = max(cost.mib for cost in measured)
        print(f"{what:28}{min(seconds):12.2f}{medians[-1]:8.2f}{max(seconds):8.2f}{largest:12.0f}")
    ours = next(iter(costs.values()))
    ratio = medians[1] / medians[0]
    print(f"\n{len(ours)} runs of each in turn; the other takes {ratio:.1f} times the CPU (medians)")
    requirements = {
        f"at most {MOST_CPU_SECONDS} s of CPU": max(cost.cpu_seconds for cost in ours) <= MOST_CPU_SECONDS,
        f"at most {MOST_MIB} MiB": max(cost.mib for cost in ours) <= MOST_MIB,
        f"at least {LEAST_RATIO} times less CPU": ratio >= LEAST_RATIO,
        f"imports nothing of {', '.join(HEAVY)}": not heavy,
    }
    for requirement, met in requirements.items():
        print(f"{'ok    ' if met else 'MISSED'}  {requirement}")
    return 0 if all(requirements.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
