"""What `nemo-run convert` costs, both ways, beside copying the same files.

    python benchmarks/convert.py                    # 1.1B parameters, 2.2 GB in bf16; takes five times that on the disk
    python benchmarks/convert.py --layers 2         # a smaller one
    python benchmarks/convert.py --shard-size 5GB   # in one file

The model has the shapes of TinyLlama and random weights. Copying reads and writes the same files and has them outlive a
loss of power, as the command does. Each is a process of its own; all are run in turn, and memory is their largest
resident size, as the kernel counts it. What is read is not in memory before, as a model is not that was fetched some
time ago. The quickest run of each counts, since other work on the machine only makes them slower. The exit code is 1 if
a requirement is missed.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

SETTLING = 8
"""Seconds in which a virtual machine gives back the memory that the command before has freed: whoever comes right after
it would write into memory that is there, the others would wait for theirs."""

START = "PyTorch alone"
"""Importing what reads and writes checkpoints: a conversion begins with it, whatever it does then."""

MOST_MIB_ABOVE_SHARD, MOST_TIMES_COPY = 500, 2

MAKE = """
import sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
torch.set_default_dtype(torch.bfloat16)
config = LlamaConfig(
    vocab_size=32000, hidden_size=2048, intermediate_size=5632, num_hidden_layers=int(sys.argv[2]),
    num_attention_heads=32, num_key_value_heads=4, max_position_embeddings=2048, pad_token_id=None,
)
LlamaForCausalLM(config).save_pretrained(sys.argv[1], max_shard_size=sys.argv[3])
"""

COPY = """
import os, shutil, sys
shutil.copytree(sys.argv[1], sys.argv[2])
for folder, _, files in os.walk(sys.argv[2]):
    for name in files:
        descriptor = os.open(os.path.join(folder, name), os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
"""


@dataclass(frozen=True)
class Cost:
    """What one process took.

    Attributes:
        seconds: Time by the clock.
        cpu_seconds: User and system time.
        mib: Largest resident size.
    """

    seconds: float
    cpu_seconds: float
    mib: float


def run(*command: str) -> Cost:
    """Run a command and return what it took."""
    os.sync()  # what was written before is not paid for here
    time.sleep(SETTLING)
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)} exited with {process.returncode}")
    return Cost(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def evict(folder: Path) -> None:
    """Have the kernel forget the files of a folder, so that they are read from the disk."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def largest_file(folder: Path) -> float:
    """Return the size of the largest file of a folder, in MiB."""
    return max(path.stat().st_size for path in folder.iterdir()) / 2**20


def are_equal(one: Path, other: Path) -> bool:
    """Return whether two folders hold the same files, byte for byte."""
    return subprocess.run(["diff", "-rq", one, other], stdout=subprocess.DEVNULL).returncode == 0


def main() -> int:
    """Measure, print a table, and say which requirements are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", metavar="N", default="22", help="layers of the model (22)")
    parser.add_argument("--shard-size", metavar="S", default="500MB", help="size of its files (500MB)")
    parser.add_argument("--runs", metavar="N", type=int, default=3, help="measured runs of each (3)")
    parser.add_argument("--folder", metavar="D", type=Path, help="where to write (a temporary folder)")
    given = parser.parse_args()
    nemo_run = [sys.executable, str(Path(sys.executable).with_name("nemo-run"))]
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        source, copy, checkpoint, back = (Path(name, word) for word in ("model", "copy", "checkpoint", "back"))
        run(sys.executable, "-W", "ignore", "-c", MAKE, str(source), given.layers, given.shard_size)
        size, shard = sum(path.stat().st_size for path in source.iterdir()), largest_file(source)
        commands = {
            START: (sys.executable, "-c", "import torch.distributed.checkpoint"),
            "copy": (sys.executable, "-c", COPY, str(source), str(copy)),
            "to a checkpoint": (*nemo_run, "convert", str(source), str(checkpoint)),
            "and back": (*nemo_run, "convert", str(checkpoint), str(back)),
        }
        costs: dict[str, list[Cost]] = {what: [] for what in commands}
        for _ in range(given.runs):
            for what, command in commands.items():
                evict(checkpoint if what == "and back" else source)
                costs[what].append(run(*command))
            same = are_equal(source, back)
            for folder in (copy, checkpoint, back):
                shutil.rmtree(folder)
    print(f"{size / 2**20:,.0f} MiB, the largest file {shard:,.0f} MiB")
    return report(costs, shard, same)


def report(costs: dict[str, list[Cost]], shard: float, same: bool) -> int:
    """Print the figures and return 1 if a requirement is missed."""
    print(f"{'':20}{'s: min':>10}{'median':>8}{'max':>8}{'of copy':>10}{'CPU s: min':>12}{'MiB: max':>10}")
    copy = min(cost.seconds for cost in costs["copy"])
    met = {"the files come back byte for byte": same}
    for what, measured in costs.items():
        seconds = [cost.seconds for cost in measured]
        ratio, mib = min(seconds) / copy, max(cost.mib for cost in measured)
        print(
            f"{what:20}{min(seconds):10.1f}{statistics.median(seconds):8.1f}{max(seconds):8.1f}{ratio:10.2f}"
            f"{min(cost.cpu_seconds for cost in measured):12.1f}{mib:10.0f}"
        )
        if what not in ("copy", START):
            met[f"{what}: at most {MOST_TIMES_COPY} times the time of a copy"] = ratio <= MOST_TIMES_COPY
            most = shard + MOST_MIB_ABOVE_SHARD
            met[f"{what}: at most the largest file and {MOST_MIB_ABOVE_SHARD} MiB of memory"] = mib <= most
    for requirement, is_met in met.items():
        print(f"{'ok    ' if is_met else 'MISSED'}  {requirement}")
    return 0 if all(met.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
