"""The stages of a pipeline in a few words, for both the text and the page."""

import re
from collections.abc import Sequence

import fiddle as fdl

from executors.pipelines.planning import StagePlan

__all__ = ["after_text", "process_count", "stage_in_short"]


def stage_in_short(entry: StagePlan) -> str:
    """Return what a stage does, such as `trains llava.finetune: 8 processes, 800 steps` or `runs export`."""
    if entry.plan is None:
        words = re.findall("[A-Z][a-z]*", fdl.get_callable(entry.stage.work).__name__)
        return f"runs {' '.join(words).lower()}"
    recipe, layout = entry.plan.recipe, entry.plan.layout
    if layout is None:  # there are errors
        return f"trains {recipe.name}"
    steps = recipe.trainer.max_steps
    length = "steps by epochs" if steps is None else f"{steps:,} step{'' if steps == 1 else 's'}"
    return f"trains {recipe.name}: {process_count([layout.world_size])}, {length}"


def process_count(sizes: Sequence[int]) -> str:
    """Return the number of processes, or the range of numbers over the points of a sweep."""
    least, most = min(sizes), max(sizes)
    if most == 1:
        return "1 process"
    return f"{most} processes" if least == most else f"{least} to {most} processes"


def after_text(names: Sequence[str]) -> str:
    """Return the end of a stage's title: the stages that it waits for."""
    return f", after {' and '.join(names)}" if names else ""
