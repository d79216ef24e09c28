"""Runs through NVIDIA's NeMo-Run.

Names are imported on first use, because processes of a run use this package too and must not import the executor.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from executors.nemo_run.executor import NemoRunExecutor, to_nemo_run

__all__ = ["NemoRunExecutor", "to_nemo_run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from executors.nemo_run import executor

    return getattr(executor, name)
