"""The report of a check as text of 80 columns, and as JSON."""

import json
from collections.abc import Iterator

from neva_recipes.config import PlainTable, how_many
from neva_recipes.data_tools.figures import Histogram, histograms, sizes
from neva_recipes.data_tools.kinds import KINDS
from neva_recipes.data_tools.report import FileReport, OfKind, Report
from neva_recipes.data_tools.settings import Finding
from neva_recipes.table import display_width, padded
from neva_recipes.terminal import fold, one_line

__all__ = ["conditions", "place_of", "report_to_json", "report_to_text"]

_WIDTH, _BAR = 80, 36
_SHOWN = 3
"""Findings of a kind that are shown as text."""


def conditions(report: Report) -> str:
    """Return as text how files were checked."""
    settings = report.settings
    tokens = "tokens estimated" if settings.tokenizer is None else f"tokens of {settings.tokenizer}"
    images = "images not looked at (--image-folder names their folder)"
    if settings.image_folder is not None:
        images = f"images in {settings.image_folder}, {'decoded' if settings.decodes else 'not decoded'}"
    return f"template {settings.template}, {settings.image_tokens} tokens an image, {tokens}; {images}"


def place_of(finding: Finding) -> str:
    """Return as text which sample a finding is of."""
    parts = [f"id {finding.id}"] if finding.id else []
    parts += [f"line {finding.line:,}"] if finding.line is not None else []
    return f"sample {finding.number}" + (f" ({', '.join(parts)})" if parts else "")


def report_to_text(report: Report) -> str:
    """Return the report as text."""
    return "".join(f"{line}\n" for line in _lines(report))


def _lines(report: Report) -> Iterator[str]:
    for file in report.files:
        yield from _file_lines(file)
        yield ""
    counts = report.counts
    if len(report.files) > 1:
        yield f"all {len(report.files)} files"
    named = list(sizes(counts, report.settings))
    width = max(display_width(name) for name, _ in named)
    yield from (f"  {padded(name, width)}  {value}" for name, value in named)
    for histogram in histograms(counts, report.settings):
        yield ""
        yield from fold(histogram.title, _WIDTH)
        yield from _bars(histogram)
    yield ""
    yield from fold(f"checked: {conditions(report)}", _WIDTH, "", "  ")


def _file_lines(file: FileReport) -> Iterator[str]:
    total = sum(len(found.numbers) for found in file.found.values())
    head = f"{one_line(str(file.path))}: {how_many(file.counts.samples, 'sample')}, "
    yield from fold(head + (how_many(total, "finding") if total else "nothing found"), _WIDTH, "", "  ")
    for kind, found in file.by_kind():
        yield from _kind_lines(kind, found)
        if kind == "image-missing" and file.lost:
            yield from fold(one_line(f"the first: {file.lost}"), _WIDTH, "    ")


def _kind_lines(kind: str, found: OfKind) -> Iterator[str]:
    severity, meaning, advice = KINDS[kind]
    head = f"{severity} {kind}, {how_many(len(found.numbers), 'sample')}: {meaning}: {advice}"
    yield from fold(head, _WIDTH, "  ", "    ", keeps_commands=True)
    for finding in found.listed[:_SHOWN]:
        yield from fold(one_line(f"{place_of(finding)}: {finding.what}"), _WIDTH, "    ", "      ")
    if len(found.numbers) > _SHOWN:
        yield f"    and {len(found.numbers) - _SHOWN:,} more"


def _bars(histogram: Histogram) -> Iterator[str]:
    labels = max(len(one.label) for one in histogram.bins)
    highest = max(one.number for one in histogram.bins)
    for one in histogram.bins:
        bar = "#" * (max(1, round(_BAR * one.number / highest)) if one.number else 0)
        yield f"  {one.label:>{labels}}  {bar:{_BAR}} {one.number:,}"
    yield f"  {histogram.summary}"


def report_to_json(report: Report) -> str:
    """Return the report as JSON."""
    files = [_file_table(file) for file in report.files]
    settings = report.settings
    made: PlainTable = {
        "clean": report.is_clean,
        "template": settings.template,
        "sequence_length": settings.sequence_length,
        "tokens_per_image": settings.image_tokens,
        "tokenizer": None if settings.tokenizer is None else str(settings.tokenizer),
        "image_folder": None if settings.image_folder is None else str(settings.image_folder),
        "decoded": settings.decodes,
        "files": files,
        "histograms": {
            one.name: {
                "title": one.title,
                "mean": one.mean,
                "median": one.median,
                "most": one.most,
                "bins": [{"least": each.least, "most": each.most, "count": each.number} for each in one.bins],
            }
            for one in histograms(report.counts, settings)
        },
    }
    return json.dumps(made, indent=2) + "\n"


def _file_table(file: FileReport) -> PlainTable:
    counts = file.counts
    return {
        "file": str(file.path),
        "samples": counts.samples,
        "usable": counts.usable,
        "with_image": counts.with_image,
        "text_only": counts.samples - counts.with_image,
        "cut": counts.cut,
        "why_missing": file.lost or None,
        "findings": [
            {
                "kind": kind,
                "severity": KINDS[kind].severity,
                "meaning": KINDS[kind].meaning,
                "count": len(found.numbers),
                "numbers": list(found.numbers),
                "listed": [
                    {"sample": one.number, "id": one.id or None, "line": one.line, "what": one.what}
                    for one in found.listed
                ],
            }
            for kind, found in file.by_kind()
        ],
    }
