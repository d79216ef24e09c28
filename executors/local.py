"""Runs a job as processes of this machine, under a supervisor that can outlive the command which started it."""

import os
import sys
from dataclasses import dataclass
from typing import ClassVar

from executors._gpu import local_gpu_type
from executors._supervised import SupervisedExecutor
from neva_recipes.config import RunError
from neva_recipes.plan import Layout

__all__ = ["LocalExecutor"]


@dataclass(frozen=True, kw_only=True)
class LocalExecutor(SupervisedExecutor):
    """One process per rank on this machine."""

    kind: ClassVar[str] = "local"

    def check(self, layout: Layout) -> None:
        """Raise `RunError` if the job is not for one machine, or this one is not Linux."""
        if layout.num_nodes != 1:
            raise RunError(
                f"trainer.num_nodes={layout.num_nodes}: the local executor runs on one machine; "
                "set trainer.num_nodes=1 or take an executor of a cluster"
            )
        if not sys.platform.startswith("linux"):
            raise RunError(f"the local executor needs Linux, this is {sys.platform}")

    def gpu_type(self) -> str | None:
        """Return the type of this machine's GPUs, if the driver names one that is in the table."""
        return local_gpu_type()

    def job_environment(self, layout: Layout) -> dict[str, str]:
        """Return `env`, with unbuffered output and a fair share of the cores where the user has not chosen."""
        cores = len(os.sched_getaffinity(0))
        defaults = {
            "OMP_NUM_THREADS": str(max(1, cores // layout.processes_per_node)),
            "PYTHONUNBUFFERED": "1",  # output goes to a pipe, and is to be seen as it comes
        }
        return {name: value for name, value in defaults.items() if name not in os.environ} | self.env
