"""Jobs whose ranks are small Python scripts, and a command that starts one in the foreground or detached."""

import argparse
import dataclasses
import sys
from pathlib import Path

import executors
from executors.conformance import tiny_recipe
from neva_recipes.config import UserError
from neva_recipes.interruption import ends_told_by_command

PATIENCE = 120.0

# What a rank does to leave processes behind: one child in its group, one in a session of its own, both deaf to SIGTERM.
GRANDCHILDREN = """
import subprocess, sys, time, os, signal
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
for new_session in (False, True):
    child = subprocess.Popen([sys.executable, "-S", "-c", deaf], stdout=subprocess.PIPE, start_new_session=new_session)
    child.stdout.readline()
"""


def make_recipe(world_size=1, name="tiny", **trainer):
    """Return a valid recipe that needs `world_size` processes."""
    return tiny_recipe(name, **{"devices": world_size, **trainer})


def make_job(script, runs_dir, world_size=1, *, name=None, arguments=(), grace=20.0, env=None):
    """Return a job whose ranks run the Python file `script`; the run directory is its last argument."""
    executor = executors.LocalExecutor(grace_seconds=grace, env=env or {})
    job = executors.plan_job(make_recipe(world_size), executor, name=name, runs_dir=runs_dir)
    return dataclasses.replace(job, argv=(sys.executable, "-S", str(script), *arguments))


def unfold(lines):
    """Return what each rank printed, by rank, from folded lines."""
    said = {}
    for line in lines:
        ranks, _, text = line[1:].partition("] ")
        for span in ranks.split(","):
            first, _, last = span.partition("-")
            for rank in range(int(first), int(last or first) + 1):
                said.setdefault(rank, []).append(text)
    return said


def _main():
    parser = argparse.ArgumentParser()
    parser.add_argument("script", type=Path)
    parser.add_argument("runs_dir", type=Path)
    parser.add_argument("--world-size", type=int, default=1)
    parser.add_argument("--grace", type=float, default=20.0)
    parser.add_argument("--detach", action="store_true")
    arguments = parser.parse_args()
    try:
        job = make_job(arguments.script, arguments.runs_dir, arguments.world_size, grace=arguments.grace)
        with ends_told_by_command():
            run = executors.start_job(job, detach=arguments.detach)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return run.status().exit_code or 0


if __name__ == "__main__":
    sys.exit(_main())
