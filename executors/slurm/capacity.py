"""Checks whether a Slurm cluster could ever run a job, to refuse a job that would wait forever."""

import os
from collections.abc import Callable, Sequence

from executors.slurm.cluster import Nodes, minutes_of
from executors.slurm.settings import SlurmSettings
from neva_recipes.config import RunError, suggest
from neva_recipes.plan import Layout

__all__ = ["require_capacity"]

_KIBIBYTES = {"K": 1, "M": 1024, "G": 1024**2, "T": 1024**3}


def require_capacity(executor: SlurmSettings, layout: Layout, offered: Sequence[Nodes]) -> None:
    """Raise `RunError`, with the closest possible request, if no partition that the job may use can run it.

    Nodes that are down or allocated count as well: they may become available.

    Args:
        executor: The executor, whose fields hold the request.
        layout: Nodes and ranks of the job.
        offered: The nodes of the cluster by partition.
    """
    names = list(dict.fromkeys(nodes.partition for nodes in offered))
    if not names:
        return
    wanted = executor.partition or os.environ.get("SBATCH_PARTITION")
    # Slurm ignores empty names between commas.
    chosen = [*filter(None, wanted.split(","))] if wanted else [node.partition for node in offered if node.is_default]
    for name in chosen:
        if name not in names:
            hint = suggest(name, names) or f"; expected {', '.join(names)}"
            raise RunError(f"executor.partition={name}: this cluster has no such partition{hint}")
    if wanted and not chosen:
        raise RunError(f"executor.partition={wanted}: names no partition; expected {', '.join(names)}")
    if not chosen:
        raise RunError(f"executor.partition: this cluster has no default; expected {', '.join(names)}")

    def problem(name: str) -> str | None:
        return _problem(executor, layout, name, [nodes for nodes in offered if nodes.partition == name])

    problems = [problem(name) for name in dict.fromkeys(chosen)]
    if None not in problems:
        others = [name for name in names if name not in chosen and problem(name) is None]
        raise RunError(f"{problems[0]}{f'; partition {others[0]} would do' if others else ''}")


def _problem(executor: SlurmSettings, layout: Layout, name: str, kinds: list[Nodes]) -> str | None:
    """Return why a partition can never run the job, with a request that it could; `None` if it can."""
    if not any(nodes.is_up for nodes in kinds):
        return f"executor.partition={name}: is closed"
    limit, minutes = kinds[0].minutes, minutes_of(executor.time) if executor.time else None
    if limit is not None and minutes is not None and (minutes > limit or minutes == 0):
        none = " is no limit to Slurm, and" if minutes == 0 else ":"
        allowed = f"partition {name} allows {limit} minutes; the job is requeued as needed"
        return f"executor.time={executor.time}{none} {allowed}"
    count = layout.processes_per_node

    def short_of(field: str, wanted: int, unit: str, has: Callable[[Nodes], int]) -> str | None:
        nonlocal kinds
        best = max(has(nodes) for nodes in kinds)
        if best < wanted:
            return f"{field}: a node of partition {name} has {best} {unit}, and {wanted} are asked for"
        kinds = [nodes for nodes in kinds if has(nodes) >= wanted]
        return None

    if executor.gpu_request != "none":
        model = executor.gpu_model
        models = {nodes.gpu_model for nodes in kinds if nodes.gpu_model}
        if model is not None and models and model not in models:
            return f"executor.gpu_model={model}: partition {name} has {', '.join(sorted(models))}"
        if problem := short_of(f"trainer.devices={count}", count, "GPUs", lambda nodes: nodes.gpus):
            best = max(nodes.gpus for nodes in kinds)
            return problem + (f"; take at most trainer.devices={best}" if best else "; set executor.gpu_request=none")
    cores = count * (executor.cpus_per_task or 1)
    field = f"executor.cpus_per_task={executor.cpus_per_task}" if executor.cpus_per_task else f"trainer.devices={count}"
    if problem := short_of(field, cores, "cores", lambda nodes: nodes.cpus):
        return problem
    wanted = _mebibytes(executor.memory) if executor.memory else 0
    if problem := short_of(f"executor.memory={executor.memory}", wanted, "MiB", lambda nodes: nodes.memory):
        return problem
    available = sum(nodes.number for nodes in kinds)
    if (largest := kinds[0].largest) is not None:
        available = min(available, largest)
    if layout.num_nodes > available:
        return (
            f"trainer.num_nodes={layout.num_nodes}: partition {name} gives a job {available} such "
            f"node{'s' if available != 1 else ''} at most; take trainer.num_nodes={available}"
        )
    return None


def _mebibytes(memory: str) -> int:
    number, unit = (memory[:-1], memory[-1]) if memory[-1] in _KIBIBYTES else (memory, "M")
    return -(-int(number) * _KIBIBYTES[unit] // 1024)
