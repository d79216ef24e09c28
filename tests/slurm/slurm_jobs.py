"""Slurm jobs whose ranks are small Python scripts."""

import dataclasses
import os
import sys
from pathlib import Path

import executors
from executors.slurm.executor import SlurmExecutor
from tests.pipelines import recipes


def make_recipe(num_nodes=1, devices=1):
    """Return a valid recipe for so many processes that names files that are there."""
    return recipes.make_recipe(num_nodes=num_nodes, devices=devices)


def points(count):
    """Return so many points of a sweep, called 1 and so on, whose recipes differ."""
    return [({"trainer.seed": str(seed)}, recipes.make_recipe(seed=seed)) for seed in range(1, count + 1)]


def make_job(script, runs_dir, num_nodes=1, devices=1, *, name=None, arguments=(), **fields):
    """Return a job whose ranks run the Python file `script`; the run directory is its last argument."""
    executor = SlurmExecutor(**fields)
    job = executors.plan_job(make_recipe(num_nodes, devices), executor, name=name, runs_dir=runs_dir)
    return dataclasses.replace(job, argv=(sys.executable, "-S", str(script), *arguments))


def start(script, runs_dir, num_nodes=1, devices=1, **options):
    """Start a script as a detached run, without the notes on its recipe."""
    return executors.start_job(make_job(script, runs_dir, num_nodes, devices, **options), detach=True, quiet=True)


def left_of(run):
    """Return the command lines of processes that name the run directory."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(run.path) in command:
            found.append(command.replace(b"\0", b" ").decode())
    return found
