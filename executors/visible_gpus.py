"""Checks whether the ranks of a node see a GPU each, where a variable of the job says which they see."""

from collections.abc import Iterator, Mapping
from itertools import takewhile

from neva_recipes.config import how_many
from neva_recipes.plan import Finding, Plan

__all__ = ["too_few_visible"]

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def too_few_visible(env: Mapping[str, str], plan: Plan) -> Iterator[Finding]:
    """Yield a warning if the variable names fewer GPUs than a node has ranks, each of which takes one.

    Args:
        env: The variables that an executor gives to every rank.
        plan: The plan of a recipe.
    """
    value = env.get(_VISIBLE)
    if value is None or plan.on_cpu or plan.layout is None:
        return
    # CUDA passes over whatever follows a name that stands for no GPU.
    named = len([*takewhile(lambda name: name.strip() not in ("", "-1", "NoDevFiles"), value.split(","))])
    ranks = plan.layout.processes_per_node
    if named < ranks:
        takes = "each of a node's ranks takes one" if ranks > 1 else "the rank takes one"
        message = f"shows {how_many(named, 'GPU')} of a node, and {takes}: {ranks} in all"
        fields = {f"executor.env.{_VISIBLE}": value}
        advice = "leave it out, or name as many"
        yield Finding("gpus-hidden", "warning", message, fields, advice=advice, about="executor")
