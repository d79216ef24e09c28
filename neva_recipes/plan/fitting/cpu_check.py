"""Whether a machine without a GPU can train a recipe."""

from collections.abc import Iterator, Sequence

from neva_recipes.config import Recipe
from neva_recipes.plan.cost.cost import Cost
from neva_recipes.plan.cost.layout import Layout
from neva_recipes.plan.cost.memory import GIB, StageMemory
from neva_recipes.plan.findings import Finding, error
from neva_recipes.plan.fitting.machine import CpuMachine

__all__ = ["check_cpu"]

_CORE_GFLOPS = 50.0
"""Rate of a core in GFLOP/s. Products of 2048 x 2048 in fp32 reached 7 on a busy core; a faster core of today has a
peak of about 100. A run that is refused would take even longer than the message says."""

_LONGEST_HOURS = 48.0
"""A longer run on processors is taken for a mistake."""

_PLACE = "a place with GPUs (--executor slurm, or a profile)"


def check_cpu(
    recipe: Recipe, layout: Layout, memory: Sequence[StageMemory], cost: Cost, machine: CpuMachine
) -> Iterator[Finding]:
    """Yield an error if the recipe asks for a GPU, or would train for days here, or needs more memory than there is.

    Args:
        recipe: A recipe without errors of its own, with an accelerator other than `cpu`.
        layout: Its layout; all of its processes are on the machine.
        memory: The memory of each process of a pipeline stage.
        cost: Its operations.
        machine: The machine.
    """
    if recipe.trainer.accelerator == "gpu":
        yield error("no-gpu", "this machine has no GPU", recipe, "trainer.accelerator", advice=f"take {_PLACE}, or cpu")
        return
    ranks = layout.world_size // layout.pipeline_model_parallel_size
    needed = ranks * sum(stage.state for stage in memory)
    tflop = (cost.step_tflop + cost.recompute_tflop) * (cost.steps or 1)
    hours = tflop * 1e3 / (_CORE_GFLOPS * machine.cores) / 3600
    reasons = []
    if machine.memory is not None and needed > machine.memory:
        reasons.append(f"{needed / GIB:,.0f} GiB of memory (there are {machine.memory / GIB:,.0f})")
    if hours > _LONGEST_HOURS:
        reasons.append(f"more than {_days(hours)} on {machine.cores} core{'s' if machine.cores > 1 else ''}")
    if reasons:
        yield error(
            "no-gpu",
            f"this machine has no GPU, and the run would take {' and '.join(reasons)}",
            recipe,
            "trainer.accelerator",
            advice=f"take a small model (size=tiny), or {_PLACE}; trainer.accelerator=cpu insists",
        )


def _days(hours: float) -> str:
    days = hours / 24
    return f"{days:,.0f} days" if days < 730 else f"{days / 365:,.0f} years"
