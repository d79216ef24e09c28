"""The plan against every published speed there is for layouts it can describe, and against what docs/plan.md says."""

import json
import re
from pathlib import Path

import pytest

from neva_recipes import llava
from neva_recipes.cli.main import main
from neva_recipes.config import build
from neva_recipes.plan import layout_of, plan
from neva_recipes.plan.checks import check_recipe, with_values
from neva_recipes.plan.cost.cost import Cost, cost_of
from neva_recipes.plan.cost.gpus import GPUS, find_gpu
from neva_recipes.plan.cost.memory import GIB, memory_of
from neva_recipes.plan.data.lengths import Lengths
from neva_recipes.plan.findings import Remedy
from neva_recipes.plan.fitting.memory_check import NO_RECOMPUTE, check_memory
from tests.plan.published import LLAVA_HOURS, POINTS, Point

DOCS = Path(__file__).parents[2] / "docs" / "plan.md"
FARTHEST = 0.20
"""What docs/plan.md promises of NVIDIA's points."""


def full_rows(point: Point) -> Lengths:
    return Lengths(point.length, point.length, 0.0, None, 0.0, "full sequences", False)


def cost(point: Point) -> Cost:
    recipe = point.recipe()
    return cost_of(recipe, layout_of(recipe), full_rows(point), find_gpu(point.gpu))


def speed(point: Point, seconds: float) -> float:
    """Return the tokens of a second on each GPU."""
    return point.batch * point.length / point.gpus / seconds


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
def test_speeds(point: Point) -> None:
    planned = cost(point)
    assert speed(point, planned.step_seconds) == pytest.approx(point.tokens, rel=FARTHEST)
    slow, fast = (speed(point, seconds) for seconds in reversed(planned.step_seconds_range))
    assert slow < point.tokens < fast


def test_points_held_out_are_as_near_as_those_fitted() -> None:
    off = {fitted: [] for fitted in (True, False)}
    for point in POINTS:
        off[point.fitted].append(abs(speed(point, cost(point).step_seconds) / point.tokens - 1))
    assert len(off[False]) > 2 * len(off[True])
    fitted, held_out = (sum(off[kind]) / len(off[kind]) for kind in (True, False))
    assert held_out < 0.10 and held_out < 1.5 * fitted


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
def test_no_layout_that_was_run_is_stopped(point: Point) -> None:
    recipe = point.recipe()
    assert not [finding for finding in check_recipe(recipe, find_gpu(point.gpu)) if finding.severity == "error"]
    stages = memory_of(recipe, layout_of(recipe))
    assert max(stage.least for stage in stages) <= find_gpu(point.gpu).memory_gib * GIB
    found = check_memory(recipe, stages, full_rows(point), find_gpu(point.gpu), assumed=False)
    assert all(finding.severity == "warning" for finding in found)


def test_what_cannot_fit_is_stopped() -> None:
    """Without the five layers that NVIDIA's recipe recomputes, 8B takes more than the card even at its least."""
    (point,) = [point for point in POINTS if point.recomputed_layers]
    kept = Point(**{**vars(point), "recomputed_layers": 0}).recipe()
    stages = memory_of(kept, layout_of(kept))
    (found,) = check_memory(kept, stages, full_rows(point), find_gpu(point.gpu), assumed=False)
    assert found.severity == "error" and re.search(r"needs 80\.\d to \d+\.\d GiB", found.message)


def test_a_layout_between_the_two_ends_is_a_warning() -> None:
    """70B as NVIDIA laid it out, with the precision that our recipes have: fp32 sums and FP8 copies of bf16 weights."""
    (point,) = [point for point in POINTS if point.tokens == 1602]
    changes: Remedy = {"precision.grad_reduce_in_fp32": True, "precision.fp8_param": False}
    found = plan(with_values(point.recipe(), changes), gpu=point.gpu)
    memory = max(found.memory, key=lambda stage: stage.total)
    assert memory.least / GIB < find_gpu(point.gpu).memory_gib < memory.total / GIB
    (finding,) = [each for each in found.findings if each.about == "memory"]
    assert (finding.code, finding.severity) == ("memory", "warning")
    assert f"needs {memory.least / GIB:.1f} to {memory.total / GIB:.1f} GiB" in finding.message
    assert finding.remedies


def command_hours(capsys: pytest.CaptureFixture[str], stage: str, size: str) -> tuple[float, float, float]:
    """Return what `nemo-run llava.STAGE --dry-run` says for eight A100: hours, and their range."""
    main([f"llava.{stage}", f"size={size}", "--gpu", "a100-80g", "--dry-run", "--format", "json"])
    cost = json.loads(capsys.readouterr().out)["plan"]["cost"]
    return cost["hours"], *cost["hours_range"]


def test_hours_of_llava(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = []
    for (stage, size), published in LLAVA_HOURS.items():
        hours, shortest, longest = command_hours(capsys, stage, size)
        assert shortest < published < longest
        assert hours == pytest.approx(published, rel=0.22)
        lines.append(
            f"| `llava.{stage} size={size}` | {published:g} h | {hours:.1f} h | {hours / published - 1:+.0%} |"
        )
    assert table("published times") == lines


def test_the_table_of_speeds_in_the_docs() -> None:
    lines = []
    for point in POINTS:
        here = speed(point, cost(point).step_seconds)
        role = "fitted" if point.fitted else "held out"
        lines.append(
            f"| {point.name} | {point.source} | {point.tokens:,.0f} | {here:,.0f} | {here / point.tokens - 1:+.0%} "
            f"| {role} |"
        )
    assert table("published speeds") == lines


def rows_of(start: str) -> list[list[str]]:
    """Return the cells of the rows of docs/plan.md that start with some words."""
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith(start)]


def test_other_figures_in_the_docs() -> None:
    for gpu in GPUS.values():
        numbers = (gpu.memory_gib, gpu.bandwidth, gpu.bf16_tflops, gpu.fp8_tflops, gpu.fp32_tflops, gpu.link)
        told = ["none" if number is None else f"{number:g}" for number in (*numbers, gpu.network)]
        assert rows_of(f"| {gpu.name} |") == [[gpu.name, *told]]
    plain = {"data.micro_batch_size": 1, **NO_RECOMPUTE}
    for number, stage in ((1, "pretrain"), (2, "finetune")):
        sizes = []
        for tensor in (1, 2, 4, 8):
            split = {"parallel.tensor_model_parallel_size": tensor, "parallel.sequence_parallel": tensor > 1}
            recipe = with_values(build(getattr(llava, stage)("7b")), {**plain, **split})
            (memory,) = memory_of(recipe, layout_of(recipe))
            sizes.append(f"{memory.total / GIB:.1f}")
        assert rows_of(f"| stage {number}, here |") == [[f"stage {number}, here", *sizes]]


def table(title: str) -> list[str]:
    """Return the rows of the table behind `**TITLE**` in docs/plan.md."""
    _, _, behind = DOCS.read_text(encoding="utf-8").partition(f"**{title.capitalize()}**")
    return behind.partition("\n\n|")[2].split("\n\n")[0].splitlines()[2:]
