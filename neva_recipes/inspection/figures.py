"""The figures of a plan as text: labels and values for both the text and the page."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from neva_recipes.config import how_many
from neva_recipes.families import image_length
from neva_recipes.plan import Layout, Plan, Stage
from neva_recipes.plan.cost.kernels import FP8_UTILISATION
from neva_recipes.plan.cost.memory import StageMemory
from neva_recipes.plan.disk import DiskSpace

__all__ = [
    "Fact",
    "MemoryGroup",
    "billions",
    "cost_facts",
    "duration",
    "facts_in_short",
    "gib",
    "layer_text",
    "layout_facts",
    "length_facts",
    "memory_facts",
    "memory_groups",
    "mib",
    "parameter_rows",
    "part_names",
    "percent",
    "range_text",
    "rank_ranges",
    "rounded",
    "stage_text",
]

Fact = tuple[str, str]
"""A label and its value."""


def layout_facts(plan: Plan, layout: Layout) -> Iterator[Fact]:
    """Yield how processes, layers and the batch are divided."""
    data, parallel = plan.recipe.data, plan.recipe.parallel
    label = "GPUs" if plan.gpu_counts else "processes"
    yield label, f"{layout.world_size} = {how_many(layout.num_nodes, 'node')} x {layout.processes_per_node}"
    sizes = {
        "TP": layout.tensor_model_parallel_size,
        "PP": layout.pipeline_model_parallel_size,
        "CP": layout.context_parallel_size,
        "DP": layout.data_parallel_size,
    }
    yield "split", " x ".join(f"{name} {size}" for name, size in sizes.items()) + _sequence_parallel(plan)
    yield (
        "step",
        f"{how_many(data.global_batch_size, 'sample')} = {how_many(layout.data_parallel_size, 'replica')} x "
        f"{how_many(layout.num_microbatches, 'microbatch', 'microbatches')} x "
        f"{how_many(data.micro_batch_size, 'sample')}",
    )
    if layout.pipeline_model_parallel_size > 1:
        pieces = parallel.virtual_pipeline_model_parallel_size or 1
        per_stage = f", {pieces} pieces each" if pieces > 1 else ""
        yield (
            "bubble",
            f"{percent(layout.bubble)} of a step ({layout.pipeline_model_parallel_size} stages{per_stage}, "
            f"taken as equally long)",
        )
    held = [f"1/{layout.tensor_model_parallel_size} of each layer"] if layout.tensor_model_parallel_size > 1 else []
    if layout.context_parallel_size > 1:
        held.append(f"1/{layout.context_parallel_size} of each sequence")
    if held:
        whole = "norms" if plan.recipe.model.vision is None else "norms, vision tower and projector"
        note = f" ({whole} whole)" if layout.tensor_model_parallel_size > 1 else ""
        yield "a GPU has" if plan.gpu_counts else "a rank has", f"{' and '.join(held)} of its stage{note}"
    if sum(size > 1 for size in sizes.values()) > 1:
        yield "rank order", "tensor part fastest, then context part, replica, stage"


def _sequence_parallel(plan: Plan) -> str:
    return ", sequence parallel" if plan.recipe.parallel.sequence_parallel else ""


def percent(share: float) -> str:
    """Return a share in percent, with a decimal only if it matters."""
    value = 100 * share
    return f"{value:.0f} %" if value >= 10 or value == 0 else f"{value:.1f} %"


def part_names(plan: Plan, stage: Stage) -> Iterator[str]:
    """Yield the parts that a stage holds besides layers, in the order in which data flows through them."""
    model = plan.recipe.model
    if stage.has_embedding:
        if model.vision is not None:
            yield "vision tower"
        if model.projector is not None:
            yield "projector"
        yield "embedding"
    if stage.has_output:
        yield "output"


def layer_text(stage: Stage) -> str:
    """Return the layers of a stage, such as `0-7, 16-23`."""
    return ", ".join(range_text(chunk) for chunk in stage.chunks)


def range_text(numbers: range) -> str:
    """Return `first-last`, or the single number."""
    return str(numbers.start) if len(numbers) == 1 else f"{numbers.start}-{numbers.stop - 1}"


def rank_ranges(layout: Layout, stage: Stage) -> str:
    """Return the ranks of a stage, as ranges."""
    ranks = [where.rank for where in layout.ranks if where.pipeline == stage.index]
    ranges: list[range] = []
    for rank in ranks:
        if ranges and ranges[-1].stop == rank:
            ranges[-1] = range(ranges[-1].start, rank + 1)
        else:
            ranges.append(range(rank, rank + 1))
    return ", ".join(map(range_text, ranges))


def parameter_rows(plan: Plan) -> list[tuple[str, int, int]]:
    """Return part, weights and trained weights, with a sum at the end if there are several parts."""
    rows = [(part.part, part.total, part.trained) for part in plan.parameters]
    if len(rows) > 1:
        rows.append(("all", sum(total for _, total, _ in rows), sum(trained for _, _, trained in rows)))
    return rows


def billions(count: int) -> str:
    """Return a number of parameters in short, such as 7.06 B."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{significant(count / size)} {unit}"
    return str(count)


@dataclass(frozen=True)
class MemoryGroup:
    """Neighbouring stages whose GPUs hold the same amounts.

    Attributes:
        stages: Their numbers.
        memory: The memory of a GPU of each stage.
    """

    stages: range
    memory: StageMemory


def memory_groups(plan: Plan) -> list[MemoryGroup]:
    """Return the memory of all stages, with equal neighbours grouped."""
    groups: list[MemoryGroup] = []
    for memory in plan.memory:
        if groups and groups[-1].memory.bytes == memory.bytes:
            groups[-1] = MemoryGroup(range(groups[-1].stages.start, memory.stage + 1), memory)
        else:
            groups.append(MemoryGroup(range(memory.stage, memory.stage + 1), memory))
    return groups


def memory_facts(plan: Plan) -> Iterator[Fact]:
    """Yield the GPU that memory and time are estimated for, whether it is assumed, and how full it is."""
    if not plan.gpu_counts:
        yield "more", "activations, and PyTorch itself: how much is not known for a CPU"
        return
    assumed = ", assumed: --gpu NAME names another" if plan.gpu_assumed else ""
    if plan.gpu_smaller is not None:
        assumed = f", the largest of that name: it may be {plan.gpu_smaller.name}"
    unused = "; trainer.accelerator=cpu uses none" if plan.recipe.trainer.accelerator == "cpu" else ""
    yield "GPU", f"{plan.gpu.name} with {plan.gpu.memory_gib:g} GiB{assumed}{unused}"
    yield "rows", f"{plan.recipe.data.sequence_length:,} tokens each, the longest the recipe allows"
    fullest = max(plan.memory, key=lambda memory: memory.total)
    yield "fullest", f"{gib(fullest.least)} GiB where everything goes well, {gib(fullest.total)} as expected"


def stage_text(stages: range) -> str:
    """Return `stage 3` or `stages 1-14`."""
    return f"stage{'s' if len(stages) > 1 else ''} {range_text(stages)}"


def gib(count: float) -> str:
    """Return a number of bytes in GiB, without the unit."""
    value = count / 2**30
    if value == 0:
        return "0"
    return f"{value:.1f}" if value >= 0.05 else f"{value:.2f}" if value >= 0.01 else "<0.01"


def mib(count: float) -> str:
    """Return a number of bytes in MiB, without the unit."""
    return f"{count / 2**20:,.1f}"


def length_facts(plan: Plan) -> Iterator[Fact]:
    """Yield the lengths of samples, and their source."""
    lengths = plan.lengths
    yield "tokens", f"{lengths.tokens:,.0f} a sample, {lengths.padded:,.0f} with padding"
    if plan.recipe.model.vision is not None:
        yield "images", f"{lengths.images:.3g} a sample, {image_length(plan.recipe.model.vision)} tokens each"
    if lengths.samples is not None:
        yield "samples", f"{lengths.samples:,}"
    if lengths.truncated:
        yield "cut", f"{percent(lengths.truncated)} of the samples, at {plan.recipe.data.sequence_length:,} tokens"
    yield "measured" if lengths.measured else "assumed", lengths.source
    if plan.checked:
        yield "checked", plan.checked


def cost_facts(plan: Plan) -> Iterator[Fact]:
    """Yield operations, time and GPU hours, and the assumptions behind them."""
    cost, layout = plan.cost, plan.layout
    assert cost is not None and layout is not None  # both or neither
    recomputed = f", and {tflop(cost.recompute_tflop)} to recompute" if cost.recompute_tflop else ""
    yield "a sample", f"{tflop(cost.sample_tflop)} without padding{_shares(cost.sample_tflop_of)}"
    yield "a step", f"{tflop(cost.step_tflop)} with padding{recomputed}"
    yield "padding", f"{percent(cost.padding)} of the tokens of a step carry no work"
    yield "steps", _steps(plan)
    yield "tokens", f"{_tokens(plan)} without padding"
    if plan.disk is not None:
        yield "disk", _disk(plan.disk)
    if not plan.gpu_counts:
        yield "time", "not known for a CPU: --gpu NAME tells it for a GPU"
        return
    fastest, slowest = map(duration, cost.step_seconds_range)
    yield "time", f"about {duration(cost.step_seconds)} ({fastest} to {slowest}) a step{_shares(cost.step_seconds_of)}"
    if cost.hours is not None and cost.hours_range is not None and cost.gpu_hours is not None:
        shortest, longest = (duration(3600 * hours) for hours in cost.hours_range)
        yield (
            "the run",
            f"about {duration(3600 * cost.hours)} ({shortest} to {longest}), {rounded(cost.gpu_hours)} GPU hours",
        )
    yield "assumed", _utilisation(plan, cost.utilisation)


def _disk(disk: DiskSpace) -> str:
    if disk.kept == 0:
        return "no checkpoint is written"
    size = f"{_disk_size(disk.checkpoint)} a checkpoint"
    if disk.total is None:
        return f"{size}, and all of them are kept"
    return f"{size}, at most {_disk_size(disk.total)}: {disk.kept:,} kept and 1 in writing"


def _disk_size(count: int) -> str:
    return f"{gib(count)} GiB" if count >= 2**30 else f"{mib(count)} MiB"


def _steps(plan: Plan) -> str:
    """Return the steps of the run, and the number of passes over the samples, as far as they are known."""
    assert plan.cost is not None
    if plan.cost.steps is None:
        return "not known without the data file"
    if plan.cost.passes is None:
        return f"{plan.cost.steps:,}"
    passes, samples = rounded(plan.cost.passes), how_many(plan.lengths.samples or 0, "sample")
    return f"{plan.cost.steps:,}, about {passes} pass{'' if passes == '1.0' else 'es'} over {samples}"


def _tokens_of_a_step(plan: Plan) -> float:
    return plan.recipe.data.global_batch_size * plan.lengths.tokens


def _tokens(plan: Plan) -> str:
    """Return the tokens of a step, and of the run if its length is known."""
    assert plan.cost is not None
    step = _tokens_of_a_step(plan)
    run = "" if plan.cost.steps is None else f", {billions(round(step * plan.cost.steps))} the run"
    return f"{step:,.0f} a step{run}"


def facts_in_short(plans: Sequence[Plan]) -> Iterator[Fact]:
    """Yield memory, time and cost of one recipe, or the ranges over several, as far as they are known."""
    known = [plan for plan in plans if plan.memory and plan.cost is not None]
    if not known:
        return
    if not all(plan.gpu_counts for plan in known):
        states = [max(memory.state for memory in plan.memory) for plan in known]
        yield "memory", f"{_span(states, mib)} MiB of weights, gradients and optimizer in a process"
        steps = [_tokens_of_a_step(plan) for plan in known]
        yield "tokens", _tokens(known[0]) if len(known) == 1 else f"{_span(steps, '{:,.0f}'.format)} a step"
        return
    gpu, smaller = known[0].gpu, known[0].gpu_smaller
    assumed = " (assumed)" if known[0].gpu_assumed else "" if smaller is None else f" (it may be {smaller.name})"
    peaks = [max(memory.total for memory in plan.memory) for plan in known]
    yield "memory", f"{_span(peaks, gib)} of {gpu.memory_gib:g} GiB on {gpu.name}{assumed}"
    costs = [plan.cost for plan in known if plan.cost is not None]
    hours = [cost.hours for cost in costs if cost.hours is not None]
    step = f"{_span([cost.step_seconds for cost in costs], duration)} a step"
    if len(hours) < len(costs):
        yield "time", f"about {step}; the number of steps is not known without the data file"
        return
    yield "time", f"about {_span([3600 * time for time in hours], duration)}, {step}"
    together = f", {len(costs)} points together" if len(costs) > 1 else ""
    yield "cost", f"{rounded(sum(cost.gpu_hours or 0 for cost in costs))} GPU hours{together}"


def _span(values: Sequence[float], text: Callable[[float], str]) -> str:
    """Return the smallest and the largest value, or the single one if they are equal."""
    return " to ".join(dict.fromkeys((text(min(values)), text(max(values)))))


def _shares(parts: Mapping[str, float]) -> str:
    """Return the parts of a sum, largest first, without negligible ones."""
    whole = sum(parts.values())
    shares = sorted(((part / whole, name) for name, part in parts.items() if whole), reverse=True)
    named = [f"{name} {percent(share)}" for share, name in shares if share >= 0.01]
    return f": {', '.join(named)}" if len(named) > 1 else ""


def _utilisation(plan: Plan, utilisation: float) -> str:
    precision, gpu = plan.recipe.precision, plan.gpu
    peak = gpu.fp32_tflops if precision.precision == "fp32" else gpu.bf16_tflops
    text = f"matrix products at {percent(utilisation)} of the {peak:,g} TFLOP/s of {gpu.name} in {precision.precision}"
    if precision.fp8 is not None and gpu.fp8_tflops is not None:
        text += f", FP8 ones at {percent(FP8_UTILISATION)} of {gpu.fp8_tflops:,g}"
    return f"{text}; no GPU was asked"


def tflop(number: float) -> str:
    """Return a number of TFLOP with its unit; PFLOP from a thousand."""
    return f"{significant(number / 1000)} PFLOP" if number >= 1000 else f"{significant(number)} TFLOP"


def duration(seconds: float) -> str:
    """Return a time in the unit that people would choose, with two digits, since it is only an estimate."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{rounded(seconds / length)} {unit}"
    return f"{rounded(seconds)} s" if seconds >= 0.1 or seconds == 0 else f"{rounded(1000 * seconds)} ms"


def rounded(number: float) -> str:
    """Return a number with two significant digits."""
    return significant(float(f"{number:.1e}"), 2)


def significant(number: float, digits: int = 3) -> str:
    """Return a number with so many significant digits, but all digits before the point, and commas in thousands."""
    if number == 0:
        return "0"
    return f"{number:,.{max(0, digits - 1 - math.floor(math.log10(abs(number))))}f}"
