"""The figures of a plan in words: labels and values that the text and the page both show."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from neva_recipes.plan import Layout, Plan, Stage
from neva_recipes.plan._time import FP8_UTILISATION
from neva_recipes.plan.memory import StageMemory

__all__ = [
    "Fact",
    "MemoryGroup",
    "billions",
    "cost_facts",
    "duration",
    "gib",
    "layer_text",
    "layout_facts",
    "length_facts",
    "memory_facts",
    "memory_groups",
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
    yield "GPUs", f"{layout.world_size} = {_many(layout.num_nodes, 'node')} x {layout.processes_per_node}"
    sizes = {
        "TP": layout.tensor_model_parallel_size,
        "PP": layout.pipeline_model_parallel_size,
        "CP": layout.context_parallel_size,
        "DP": layout.data_parallel_size,
    }
    yield "split", " x ".join(f"{name} {size}" for name, size in sizes.items()) + _sequence_parallel(plan)
    yield (
        "step",
        f"{_many(data.global_batch_size, 'sample')} = {_many(layout.data_parallel_size, 'replica')} x "
        f"{_many(layout.num_microbatches, 'microbatch', 'microbatches')} x {_many(data.micro_batch_size, 'sample')}",
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
        yield "a GPU has", f"{' and '.join(held)} of its stage{note}"
    if sum(size > 1 for size in sizes.values()) > 1:
        yield "rank order", "tensor part fastest, then context part, replica, stage"


def _sequence_parallel(plan: Plan) -> str:
    return ", sequence parallel" if plan.recipe.parallel.sequence_parallel else ""


def _many(number: int, word: str, plural: str = "") -> str:
    return f"{number:,} {word if number == 1 else plural or word + 's'}"


def percent(share: float) -> str:
    """Return a share in percent, with a decimal only where it matters."""
    value = 100 * share
    return f"{value:.0f} %" if value >= 10 or value == 0 else f"{value:.1f} %"


def part_names(plan: Plan, stage: Stage) -> Iterator[str]:
    """Yield what a stage holds beside layers, in the order data flows through it."""
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
    """Return `first-last`, or the one number."""
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
    """Return part, weights and trained weights, with their sum at the end where there are several parts."""
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
    """Neighbouring stages whose GPUs hold the same.

    Attributes:
        stages: Their numbers.
        memory: What a GPU of each holds.
    """

    stages: range
    memory: StageMemory


def memory_groups(plan: Plan) -> list[MemoryGroup]:
    """Return the memory of all stages, with those that are alike taken together."""
    groups: list[MemoryGroup] = []
    for memory in plan.memory:
        if groups and groups[-1].memory.bytes == memory.bytes:
            groups[-1] = MemoryGroup(range(groups[-1].stages.start, memory.stage + 1), memory)
        else:
            groups.append(MemoryGroup(range(memory.stage, memory.stage + 1), memory))
    return groups


def memory_facts(plan: Plan) -> Iterator[Fact]:
    """Yield the GPU that memory and time are told for, whether anybody has named it, and what fills it."""
    assumed = ", assumed: --gpu NAME names another" if plan.gpu_assumed else ""
    unused = "; trainer.accelerator=cpu uses none" if plan.recipe.trainer.accelerator == "cpu" else ""
    yield "GPU", f"{plan.gpu.name} with {plan.gpu.memory_gib:g} GiB{assumed}{unused}"
    yield "rows", f"{plan.recipe.data.sequence_length:,} tokens each, the longest the recipe allows"


def stage_text(stages: range) -> str:
    """Return `stage 3` or `stages 1-14`."""
    return f"stage{'s' if len(stages) > 1 else ''} {range_text(stages)}"


def gib(count: float) -> str:
    """Return a number of bytes in GiB, without the unit."""
    value = count / 2**30
    if value == 0:
        return "0"
    return f"{value:.1f}" if value >= 0.05 else f"{value:.2f}" if value >= 0.01 else "<0.01"


def length_facts(plan: Plan) -> Iterator[Fact]:
    """Yield how long samples are, and how that is known."""
    lengths = plan.lengths
    yield "tokens", f"{lengths.tokens:,.0f} a sample, {lengths.padded:,.0f} with padding"
    if plan.recipe.model.vision is not None:
        yield "images", f"{lengths.images:.3g} a sample, {plan.recipe.model.vision.tokens_per_image} tokens each"
    if lengths.samples is not None:
        yield "samples", f"{lengths.samples:,}"
    if lengths.truncated:
        yield "cut", f"{percent(lengths.truncated)} of the samples, at {plan.recipe.data.sequence_length:,} tokens"
    yield "measured" if lengths.measured else "assumed", lengths.source


def cost_facts(plan: Plan) -> Iterator[Fact]:
    """Yield operations, time and GPU hours, and what they rest on."""
    cost, layout = plan.cost, plan.layout
    assert cost is not None and layout is not None  # both or neither
    recomputed = f", and {tflop(cost.recompute_tflop)} to recompute" if cost.recompute_tflop else ""
    yield "a sample", f"{tflop(cost.sample_tflop)} without padding{_shares(cost.sample_tflop_of)}"
    yield "a step", f"{tflop(cost.step_tflop)} with padding{recomputed}"
    yield "padding", f"{percent(cost.padding)} of the tokens of a step carry no work"
    yield "steps", "not known without the data file" if cost.steps is None else f"{cost.steps:,}"
    yield "time", f"about {duration(cost.step_seconds)} a step{_shares(cost.step_seconds_of)}"
    if cost.hours is not None and cost.gpu_hours is not None:
        yield "the run", f"about {duration(3600 * cost.hours)}, {rounded(cost.gpu_hours)} GPU hours"
    yield "assumed", _utilisation(plan, cost.utilisation)


def _shares(parts: Mapping[str, float]) -> str:
    """Return what a sum consists of, the largest first, as far as it matters."""
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
    """Return a number of TFLOP with its unit, PFLOP from a thousand on."""
    return f"{significant(number / 1000)} PFLOP" if number >= 1000 else f"{significant(number)} TFLOP"


def duration(seconds: float) -> str:
    """Return a time in the unit that people would choose, to two digits: none of them is measured."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{rounded(seconds / length)} {unit}"
    return f"{rounded(seconds)} s" if seconds >= 0.1 or seconds == 0 else f"{rounded(1000 * seconds)} ms"


def rounded(number: float) -> str:
    """Return a number with two digits that count."""
    return significant(float(f"{number:.1e}"), 2)


def significant(number: float, digits: int = 3) -> str:
    """Return a number with so many digits that count, but no fewer than before the point, and commas in thousands."""
    if number == 0:
        return "0"
    return f"{number:,.{max(0, digits - 1 - math.floor(math.log10(abs(number))))}f}"
