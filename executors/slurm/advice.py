"""What a plan shows to be unwise in the request of a Slurm job: time limit, GPUs, cores, names on the hub."""

import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from executors.slurm.cluster import minutes_of
from executors.slurm.settings import SlurmSettings
from neva_recipes.config import how_many, suggest
from neva_recipes.plan import Finding, Plan
from neva_recipes.plan.cost.gpus import GPUS
from neva_recipes.plan.findings import Remedy, Severity
from neva_recipes.plan.huggingface import could_be_on_hub, has_known_sizes, is_cached, is_offline

__all__ = ["advice_on"]

_NODE_BYTES = 1e9
"""Bytes a second that a node reads from and writes to the disk of the runs: assumed. Ethernet of 10 Gbit/s carries a
quarter more."""

_START_SECONDS = 60.0
"""Seconds from the start of the job to its first step, apart from reading weights: assumed."""

_SHORT_MINUTES, _MANY_STARTS = 60, 10
"""A limit of at most so many minutes that makes a run of at least so many starts is taken for a slip."""

_STARTS_OF_A_SLIP = 2
"""Starts above which a short limit that is written without hours, such as 8, is taken for one."""

_GIB = 2**30


def advice_on(executor: SlurmSettings, plan: Plan) -> Iterator[Finding]:
    """Yield warnings and notes on what a job asks of Slurm.

    Args:
        executor: The executor, whose fields hold the request.
        plan: The plan of a recipe that has a layout.
    """
    if not plan.on_cpu and executor.gpu_request != "none":  # times are known for GPUs alone
        yield from _time(executor, plan)
        yield from _signal(executor, plan)
    yield from _no_gpus(executor, plan)
    yield from _type(executor, plan)
    yield from _name_of_table(executor)
    yield from _cores(executor, plan)
    yield from _downloads(executor, plan)


def _time(executor: SlurmSettings, plan: Plan) -> Iterator[Finding]:
    """The run ends within its time limits, and most of each is training."""
    limit = _limit(executor)
    if executor.time is None or not limit or plan.cost is None or plan.cost.hours_range is None:
        return
    least, most = (60 * hours for hours in plan.cost.hours_range)
    around = _around_minutes(plan)
    longer: Remedy = {"executor.time": _clock(most + around)}
    fields: dict[str, Any] = {"executor.time": executor.time}
    takes = f"the run takes {_minutes(least)} at least (about {60 * (plan.cost.hours or 0):,.0f} on {_gpu(plan)})"
    starts = None if executor.max_requeues is None else 1 + executor.max_requeues
    if starts is not None and least > limit * starts:
        gets = f"{_minutes(limit)}" if starts == 1 else f"{starts} starts of {_minutes(limit)}"
        message = f"{takes} and gets {gets}: it ends unfinished{_reading(executor.time)}"
        ways = [longer] if around > limit / 2 else [longer, {"executor.max_requeues": None}]
        fields["executor.max_requeues"] = executor.max_requeues
        yield _finding("warning", "time-limit", message, fields, *ways)
    elif around > limit / 2 and most > limit:
        message = f"a start and a checkpoint take about {_minutes(around)} of it, and {takes}{_reading(executor.time)}"
        yield _finding("warning", "time-limit", message, fields, longer)
    elif limit <= _SHORT_MINUTES and least > limit and (_reading(executor.time) or least / limit >= _MANY_STARTS):
        starts_of = f"{math.ceil(least / limit)} starts of {_minutes(limit)} or more"
        message = f"{takes}, which makes {starts_of}{_reading(executor.time)}"
        severity: Severity = "warning" if least / limit > _STARTS_OF_A_SLIP else "note"
        yield _finding(severity, "time-limit", message, fields, longer)


def _signal(executor: SlurmSettings, plan: Plan) -> Iterator[Finding]:
    """The step under way and a checkpoint fit between the signal and the end of a job that is stopped on the way."""
    limit, cost = _limit(executor), plan.cost
    if limit == 0 or cost is None or plan.disk is None or plan.disk.kept == 0:
        return
    most = None if cost.hours_range is None else 60 * cost.hours_range[1]
    if most is not None and most <= (_SHORT_MINUTES if limit is None else limit):
        return  # it ends before it is stopped
    size = plan.disk.checkpoint
    seconds = cost.step_seconds + _transfer_seconds(plan, size)
    if seconds <= executor.signal_delay_s:
        return
    nodes = _nodes(plan)
    message = (
        f"a step and a checkpoint of {size / _GIB:,.1f} GiB take about {math.ceil(seconds)} s, at 1 GB/s from "
        f"{'the node' if nodes == 1 else f'each of {nodes} nodes'}: what is not saved by the time limit is lost"
    )
    enough = 30 * math.ceil(1.25 * seconds / 30)
    ways = [{"executor.signal_delay_s": enough}] if limit is None or enough < 60 * limit else []
    yield _finding("warning", "signal-delay", message, {"executor.signal_delay_s": executor.signal_delay_s}, *ways)


def _no_gpus(executor: SlurmSettings, plan: Plan) -> Iterator[Finding]:
    """A job whose plan has GPUs asks for them, in one way or another."""
    asks_itself = any(name.startswith(("gpus", "tres")) for name in executor.sbatch)
    if executor.gpu_request != "none" or plan.on_cpu or plan.layout is None or asks_itself:
        return
    fields: dict[str, Any] = {"executor.gpu_request": "none"}
    if executor.gpu_model is not None:
        fields["executor.gpu_model"] = executor.gpu_model
    gpus = how_many(plan.layout.world_size, "GPU")
    message = f"the job asks for no GPU, and its plan is one of {gpus}: only nodes that give them unasked have any"
    cpu: Remedy = {"trainer.accelerator": "cpu"}
    yield _finding("note", "gpu-unrequested", message, fields, {"executor.gpu_request": "gres"}, cpu)


def _type(executor: SlurmSettings, plan: Plan) -> Iterator[Finding]:
    """The cluster's name of its GPUs tells which they are."""
    if executor.gpu_model is None or not plan.gpu_assumed or plan.on_cpu:
        return
    hint = suggest(executor.gpu_model, GPUS)
    message = f"no type of GPU is known by this name{hint}, so memory and time are those of {plan.gpu.name}"
    fields = {"executor.gpu_model": executor.gpu_model}
    yield _finding("note", "gpu-unknown", message, fields, advice="name it with --gpu, which Slurm is not told")


def _name_of_table(executor: SlurmSettings) -> Iterator[Finding]:
    """The cluster's name of its GPUs is none of the planner's, which have the memory in them."""
    model = executor.gpu_model
    is_asked = shutil.which("sinfo") is not None  # a launch then compares the name with those of the partition
    if model not in GPUS or executor.gpu_request == "none" or is_asked:
        return
    chip = re.sub(r"-\d+g$", "", model)
    if chip == model:
        return
    option = {"gres": "--gres=gpu:", "gpus-per-node": "--gpus-per-node="}[executor.gpu_request]
    message = f"{option}{model} is probably not what the cluster calls it, which sinfo -o %G shows"
    remedy: Remedy = {"executor.gpu": executor.gpu or model, "executor.gpu_model": chip}
    yield _finding("note", "gpu-name", message, {"executor.gpu_model": model}, remedy)


def _cores(executor: SlurmSettings, plan: Plan) -> Iterator[Finding]:
    """A rank and the processes that load its samples have a core each."""
    loaders, cores = plan.recipe.data.num_workers, executor.cpus_per_task
    is_given = executor.exclusive or "cpus-per-gpu" in executor.sbatch or "SBATCH_CPUS_PER_TASK" in os.environ
    if not loaders or (cores is None and is_given) or (cores is not None and cores > loaders):
        return
    fields = {"executor.cpus_per_task": cores, "data.num_workers": loaders}
    remedies = ({"executor.cpus_per_task": loaders + 1},)
    shared = f"the rank and the {loaders} processes that load its samples" if loaders > 1 else "the rank and its loader"
    if cores is None:
        message = f"where the partition has no default of its own, Slurm gives a rank one core, which {shared} share"
        yield _finding("note", "cores", message, fields, *remedies)
    else:
        yield _finding("warning", "cores", f"{shared} share {cores} core{'s' if cores > 1 else ''}", fields, *remedies)


def _downloads(executor: SlurmSettings, plan: Plan) -> Iterator[Finding]:
    """Models on the hub have been fetched before nodes need them."""
    model, tokenizer = plan.recipe.model, plan.recipe.data.tokenizer
    parts = {"language": model.language, "vision": model.vision, "projector": model.projector}
    names = {f"model.{name}.from_pretrained": part.source for name, part in parts.items() if part is not None}
    cache = executor.fetched_models()
    fetching = (
        "the ranks cannot fetch it, for HF_HUB_OFFLINE is set"
        if is_offline({**os.environ, **executor.env})
        else "the ranks fetch it as they start, and the nodes of many clusters reach no network"
    )
    for field, name in {**names, "data.tokenizer": tokenizer}.items():
        if name is None or not could_be_on_hub(name) or is_cached(name, cache, weights=field != "data.tokenizer"):
            continue
        unseen = field != "data.tokenizer" and not has_known_sizes(name, cache)
        compared = ", and its weights are not compared with the recipe" if unseen else ""
        yield _finding(
            "note",
            "hub-download",
            f"is not in {cache}: {fetching}{compared}",
            {field: name},
            advice=f"hf download {name} first, with a HF_HOME that the nodes see (docs/slurm.md)",
        )


def _finding(
    severity: Severity, code: str, message: str, fields: Mapping[str, Any], *remedies: Remedy, advice: str = ""
) -> Finding:
    return Finding(code, severity, message, fields, remedies, advice, about="executor")


def _limit(executor: SlurmSettings) -> int | None:
    """Return the minutes of the time limit, 0 for none at all; `None` if the partition's limit counts."""
    return None if executor.time is None else minutes_of(executor.time)


def _around_minutes(plan: Plan) -> float:
    """Return the minutes of each start in which nothing is trained: it reads a checkpoint and writes one."""
    size = 0 if plan.disk is None or plan.disk.kept == 0 else plan.disk.checkpoint
    return (_START_SECONDS + 2 * _transfer_seconds(plan, size)) / 60


def _transfer_seconds(plan: Plan, size: int) -> float:
    return size / (_NODE_BYTES * _nodes(plan))


def _nodes(plan: Plan) -> int:
    return plan.layout.num_nodes if plan.layout is not None else 1


def _gpu(plan: Plan) -> str:
    return f"{plan.gpu.name}{', which is assumed' if plan.gpu_assumed else ''}"


def _minutes(minutes: float) -> str:
    whole = math.floor(minutes)
    return f"{whole:,} minute{'' if whole == 1 else 's'}"


def _clock(minutes: float) -> str:
    """Return a time limit of at least so many minutes, in half hours, as `2:30:00`."""
    halves = math.ceil(minutes / 30)
    return f"{halves // 2}:{30 * (halves % 2):02}:00"


def _reading(time: str) -> str:
    """Return what a time without hours stands for, for those who meant hours; empty for a time with hours."""
    colons = time.count(":")
    if "-" in time or colons > 1:
        return ""
    return f" ({time} is minutes{' and seconds' if colons else ''} to Slurm: {time}{':00' * (2 - colons)} is hours)"
