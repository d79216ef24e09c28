"""The output of `--format html` for a pipeline: one self-contained page, with a section for each stage."""

from collections.abc import Iterator
from datetime import datetime

from executors import Executor, PipelineJob
from executors.pipelines.planning import StagePlan
from neva_recipes.html import Element, element
from neva_recipes.inspection import figures
from neva_recipes.inspection._page_parts import Part, closing, finding, page_of, plan_parts, recipe_part, tile, tiles
from neva_recipes.inspection.stages import after_text, stage_in_short

__all__ = ["pipeline_to_html"]


def pipeline_to_html(planned: PipelineJob, *, typed: str = "", moment: datetime | None = None) -> str:
    """Return the page: findings, then for each stage what it does, its plan, and its fields with their sources.

    Args:
        planned: The pipeline.
        typed: The command that was typed to get the page; empty if there is none.
        moment: The time of the command; `None` means now.
    """
    content = [
        element("div", *_tiles(planned), class_="tiles"),
        Part("Findings", *_findings(planned)).section(),
        *(_stage(entry, planned.executor) for entry in planned.stages),
    ]
    return page_of(planned.job.name, content, typed=typed, moment=moment)


def _tiles(planned: PipelineJob) -> Iterator[Element]:
    yield tile(str(len(planned.stages)), "stages" if len(planned.stages) > 1 else "stage")
    plans = [entry.plan for entry in planned.stages if entry.plan is not None]
    costs = [plan.cost for plan in plans if plan.cost is not None and plan.gpu_counts]
    hours = [cost.hours for cost in costs if cost.hours is not None]
    if plans and len(hours) == len(plans):
        yield tile(figures.duration(3600 * sum(hours)), "the training, one stage after another (estimate)")
        yield tile(figures.rounded(sum(cost.gpu_hours or 0 for cost in costs)), "GPU hours (estimate)")


def _findings(planned: PipelineJob) -> Iterator[Element]:
    by_kind = {"error": planned.problems, "warning": planned.warnings, "note": planned.not_here + planned.notes}
    for kind, lines in by_kind.items():
        yield from (finding(kind, kind, line) for line in lines)
    if not any(by_kind.values()):
        yield element("p", "none")
    yield from closing(planned.refused_here)


def _stage(entry: StagePlan, executor: Executor) -> Element:
    """Return the section of a stage: what it does at a glance, and the rest to be opened."""
    content = [element("p", stage_in_short(entry))]
    if entry.layout is not None and (asked := executor.asks_for(entry.layout)):
        content.append(element("p", f"Its job asks for {asked}."))
    parts: list[Part] = []
    if entry.plan is not None:
        content.append(element("div", *tiles(entry.plan), class_="tiles"))
        parts += plan_parts(entry.plan)
    parts.append(recipe_part("Recipe" if entry.stage.trains else "Fields", entry.stage.work))
    content += [element("p", f"{name}={value}: that of the training") for name, value in entry.chosen.items()]
    title = f"{entry.stage.name}{after_text(entry.after)}"
    return Part(title, *content, *(part.details() for part in parts)).section()
