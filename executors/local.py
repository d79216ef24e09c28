"""Runs a job as processes of this machine, under a supervisor that can outlive the command that started it."""

import importlib.util
import os
import sys
from typing import ClassVar

from executors.process.gpu import local_gpu_type
from executors.process.machine import this_cpu_machine
from executors.process.supervised import SupervisedExecutor
from neva_recipes.config import RunError, config_dataclass
from neva_recipes.plan import Layout
from neva_recipes.plan.fitting.machine import CpuMachine

__all__ = ["LocalExecutor"]


@config_dataclass
class LocalExecutor(SupervisedExecutor):
    """One process per rank on this machine."""

    kind: ClassVar[str] = "local"

    def check(self, layout: Layout) -> None:
        """Raise `RunError` if the job needs several nodes or this machine does not run Linux."""
        if layout.num_nodes != 1:
            raise RunError(
                f"trainer.num_nodes={layout.num_nodes}: the local executor runs on one machine; "
                "set trainer.num_nodes=1 or take an executor of a cluster"
            )
        if not sys.platform.startswith("linux"):
            raise RunError(f"the local executor needs Linux, this is {sys.platform}")

    def gpu_type(self) -> str | None:
        """Return the type of this machine's GPUs if the driver names one that is in the table."""
        return local_gpu_type()

    def cpu_machine(self) -> CpuMachine | None:
        """Return this machine, unless it has a GPU."""
        return this_cpu_machine(self.env)

    def lacks(self, package: str) -> bool:
        """Return whether a package is not installed here; the processes use the same Python as the command."""
        return importlib.util.find_spec(package) is None

    def job_environment(self, layout: Layout) -> dict[str, str]:
        """Return `env` with defaults for unbuffered output and threads (an equal share of the cores)."""
        cores = len(os.sched_getaffinity(0))
        defaults = {
            "OMP_NUM_THREADS": str(max(1, cores // layout.processes_per_node)),
            "PYTHONUNBUFFERED": "1",  # output goes to a pipe and should be shown at once
        }
        return {name: value for name, value in defaults.items() if name not in os.environ} | self.env
