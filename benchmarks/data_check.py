"""What `nemo-run data check` takes for a file as large as LLaVA's mixture, and whether it finds what was planted.

    python benchmarks/data_check.py                      # 665,298 samples, two cores: about two minutes
    python benchmarks/data_check.py --samples 20000      # fewer

The file has the form and the size of llava_v1_5_mix665k, with faults of every kind planted in it, several samples of
each. The command runs on two cores. Memory is what all of its processes hold together, asked for twenty times a second.
The exit code is 1 if a target is missed, or if anything else was found than what was planted.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from _planted import PLANTED, write_planted

MOST_SECONDS, MOST_MIB = 60.0, 300.0

SAMPLES, TIMES, CORES = 665_298, 5, 2


def resident(process: psutil.Process) -> int:
    """Return the bytes that a process and all below it hold."""
    total = 0
    for one in (process, *process.children(recursive=True)):
        try:
            total += one.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def measured(command: list[str], output: Path) -> tuple[int, float, float, float]:
    """Return the exit code of a command, its seconds, its seconds of CPU, and the most MiB that it held."""
    began, cpu, most = time.perf_counter(), sum(os.times()[2:4]), 0
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdout=file)
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                most = max(most, resident(watched))
            except psutil.NoSuchProcess:
                break
            time.sleep(0.05)
        code = process.wait()
    return code, time.perf_counter() - began, sum(os.times()[2:4]) - cpu, most / 2**20


def main() -> int:
    """Print the figures, and return 1 if a target is missed or something else was found than planted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=SAMPLES, help=f"samples of the file ({SAMPLES:,})")
    given = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    with tempfile.TemporaryDirectory() as name:
        path, images, planted = write_planted(Path(name), given.samples, TIMES)
        size, output = path.stat().st_size / 2**20, Path(name, "report.json")
        command = [sys.executable, "-m", "neva_recipes", "data", "check", str(path), "--image-folder", str(images)]
        code, seconds, cpu, most = measured([*command, "--format", "json"], output)
        report = json.loads(output.read_text(encoding="utf-8"))
    found = {one["kind"]: one["numbers"] for one in report["files"][0]["findings"]}
    wrong = sorted(kind for kind in {*found, *planted} if found.get(kind, []) != planted.get(kind, []))
    print(f"{given.samples:,} samples, {size:,.0f} MiB, {len(PLANTED)} kinds of faults, {CORES} cores")
    print(f"seconds {seconds:.1f}, of CPU {cpu:.1f}, MiB at most {most:.0f}, exit code {code}")
    print(f"kinds found otherwise than planted: {', '.join(wrong) or 'none'}")
    return int(bool(wrong) or code != 1 or seconds > MOST_SECONDS or most > MOST_MIB)


if __name__ == "__main__":
    sys.exit(main())
