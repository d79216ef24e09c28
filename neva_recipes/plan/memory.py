"""Bytes on a GPU of each pipeline stage."""

from collections.abc import Mapping
from dataclasses import dataclass

from neva_recipes.config import Recipe
from neva_recipes.plan.findings import Finding
from neva_recipes.plan.gpus import Gpu
from neva_recipes.plan.layout import Layout

__all__ = ["StageMemory", "check_memory", "memory_of"]


@dataclass(frozen=True)
class StageMemory:
    """What one GPU of a pipeline stage holds at its fullest.

    Attributes:
        stage: Number of the stage.
        parameters: Weights on the GPU, padding included.
        trained: Those of them that training changes.
        bytes: Bytes by category, in this order: weights, gradients, optimizer, activations, logits, vision, fixed.
    """

    stage: int
    parameters: int
    trained: int
    bytes: Mapping[str, float]

    @property
    def total(self) -> float:
        """All bytes."""
        return sum(self.bytes.values())


def memory_of(recipe: Recipe, layout: Layout) -> tuple[StageMemory, ...]:
    """Return what a GPU of each pipeline stage holds, every row as long as data.sequence_length allows."""
    return ()


def check_memory(recipe: Recipe, memory: tuple[StageMemory, ...], gpu: Gpu) -> list[Finding]:
    """Return an error if a stage does not fit on the GPU, a warning if it recomputes without need."""
    return []
