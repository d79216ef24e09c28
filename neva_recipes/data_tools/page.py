"""The report of a check as one self-contained page, and its histograms as a PNG picture."""

import io
from typing import Any

from neva_recipes.config import UserError, how_many
from neva_recipes.data_tools.figures import Histogram, histograms, sizes
from neva_recipes.data_tools.kinds import KINDS
from neva_recipes.data_tools.report import FileReport, OfKind, Report
from neva_recipes.data_tools.style import page_of
from neva_recipes.data_tools.text import conditions, place_of
from neva_recipes.html import Element, element
from neva_recipes.terminal import visible

__all__ = ["histograms_to_png", "matplotlib_classes", "report_to_html"]

_SHOWN = 100
"""Findings of a kind that the page has."""

_PIXELS_PER_INCH = 100


def report_to_html(report: Report) -> str:
    """Return the page of a report."""
    tiles = [
        element("div", name, element("b", value), class_="tile")
        for name, value in sizes(report.counts, report.settings)
    ]
    charts = [_chart(one) for one in histograms(report.counts, report.settings)]
    content = [
        element("div", *tiles, class_="tiles"),
        *(_file_part(file) for file in report.files),
        *(
            [element("section", element("h2", "Distributions"), element("div", *charts, class_="charts"))]
            if charts
            else []
        ),
    ]
    return page_of("Check of data files", visible(conditions(report)), content)


def _file_part(file: FileReport) -> Element:
    total = sum(len(found.numbers) for found in file.found.values())
    said = f"{how_many(file.counts.samples, 'sample')}, {how_many(total, 'finding') if total else 'nothing found'}"
    lost = [element("p", visible(f"The first missing image: {file.lost}"))] if file.lost else []
    kinds = (_kind_part(kind, found) for kind, found in file.by_kind())
    return element("section", element("h2", visible(str(file.path))), element("p", said, class_="soft"), *lost, *kinds)


def _kind_part(kind: str, found: OfKind) -> Element:
    severity, meaning, advice = KINDS[kind]
    shown = [element("li", visible(f"{place_of(one)}: {one.what}")) for one in found.listed[:_SHOWN]]
    more = len(found.numbers) - len(shown)
    listed = [element("ul", *shown), *([element("p", f"and {more:,} more", class_="soft")] if more else [])]
    return element(
        "div",
        element("b", f"{severity}: {kind}"),
        element("div", f"{meaning}: {advice}"),
        element("details", element("summary", how_many(len(found.numbers), "sample")), *listed),
        class_=f"kind {severity}",
    )


def _chart(histogram: Histogram) -> Element:
    highest = max(one.number for one in histogram.bins)
    bins = (
        element(
            "div",
            element("span", one.label),
            element("span", element("i", style=f"width:{100 * one.number / highest:.1f}%"), class_="bar"),
            element("span", f"{one.number:,}"),
            class_="bin",
        )
        for one in histogram.bins
    )
    title = element("h3", histogram.title[0].upper() + histogram.title[1:])
    return element("div", title, *bins, element("p", histogram.summary, class_="soft"))


def matplotlib_classes() -> tuple[Any, Any]:
    """Return the classes of a figure and its canvas.

    Raises:
        UserError: Matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise UserError("--png needs Matplotlib: pip install 'neva-recipes[plot]'") from None
    return Figure, FigureCanvasAgg


def histograms_to_png(report: Report) -> bytes:
    """Return the histograms of a report as a PNG picture.

    Raises:
        UserError: Matplotlib is not installed.
    """
    figure_class, canvas_class = matplotlib_classes()
    found = list(histograms(report.counts, report.settings))
    figure = figure_class(figsize=(12, 8), dpi=_PIXELS_PER_INCH, layout="constrained")
    canvas_class(figure)
    for number, histogram in enumerate(found, start=1):
        axes = figure.add_subplot(2, 2, number)
        axes.barh([one.label for one in histogram.bins], [one.number for one in histogram.bins], color="#2f6fb5")
        axes.invert_yaxis()
        axes.set_title(f"{histogram.title}\n{histogram.summary}", fontsize="medium")
        axes.grid(alpha=0.3, axis="x")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
