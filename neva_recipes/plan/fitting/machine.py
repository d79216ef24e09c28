"""The machine that trains a recipe without a GPU."""

from dataclasses import dataclass

__all__ = ["CpuMachine"]


@dataclass(frozen=True)
class CpuMachine:
    """A machine without a GPU.

    Attributes:
        memory: Bytes that the processes of a run can use together; `None` if unknown.
        cores: Processor cores they can use.
    """

    memory: int | None
    cores: int
