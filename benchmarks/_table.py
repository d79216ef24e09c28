"""The report as a text of 80 columns."""

import textwrap
from collections.abc import Mapping
from typing import Any

__all__ = ["table"]

_WIDTH = 80


def table(report: Mapping[str, Any]) -> str:
    """Return the figures of a report as a table, and below it what failed and why."""
    gpu, matmul = report["machine"]["gpu"], report["matmul"]
    versions = report["machine"]["packages"]
    lines = [
        f"{gpu['name']}, {gpu['memory_gib']:.0f} GiB, driver {gpu['driver']}, CUDA {gpu['cuda']}" if gpu else "no GPU",
        ", ".join(f"{name} {versions[name] or 'none'}" for name in ("torch", "transformer-engine", "megatron-core")),
        f"bf16 product of {matmul['size']} x {matmul['size']} matrices: {matmul['tflops']:.3g} TFLOP/s",
        "",
        f"{'':28}{'layers':>7}{'tokens/s':>11}{'TFLOP/s':>9}{'of product':>11}{'GiB':>7}{'loss':>7}",
        *(_training_row(entry) for entry in report["training"] if entry["status"] == "done"),
    ]
    if report["fp8_against_bf16"]:
        lines += ["", f"{'loss of FP8 less that of bf16':44}{'largest':>12}{'mean':>12}{'mean':>12}"]
        lines += [
            f"{entry['name']:44}{entry['largest']:12.4f}{entry['mean']:12.4f}{entry['mean_percent']:10.3f} %"
            for entry in report["fp8_against_bf16"]
        ]
    digits = report["digits"]
    if digits and digits["status"] == "done":
        lines += ["", f"digits: held-out accuracy {digits['accuracy']:.3f}, {digits['seconds']:.0f} s in all"]
    entries = [*report["training"], *([digits] if digits else [])]
    lines += ["" for _ in report["failed"][:1]]
    for entry in entries:
        if entry["status"] == "failed":
            lines += textwrap.wrap(f"failed: {entry['name']}: {entry['reason']}", _WIDTH, subsequent_indent="  ")
    if report["skipped"]:
        lines += ["", *textwrap.wrap(f"no time for: {', '.join(report['skipped'])}", _WIDTH, subsequent_indent="  ")]
    return "\n".join(lines)


def _training_row(entry: Mapping[str, Any]) -> str:
    rate, share, peak = entry["tflops_per_gpu"], entry["share_of_matmul"], entry["peak_memory_gib"]
    return (
        f"{entry['name']:28}{entry['num_layers']:7}{entry['tokens_per_second']:11,.0f}"
        f"{_number(rate, '.1f'):>9}{_number(None if share is None else 100 * share, '.1f', ' %'):>11}"
        f"{_number(peak, '.1f'):>7}{entry['loss'][-1]:7.3f}"
    )


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"
