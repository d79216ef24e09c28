"""The parts of the page of a recipe, or of a pipeline's stages: figures, drawings of the layout, bars of memory."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from neva_recipes.config import DraftNode
from neva_recipes.html import Element, document, element
from neva_recipes.inspection import figures
from neva_recipes.inspection._page_style import STYLE
from neva_recipes.inspection.inspection import refusal
from neva_recipes.inspection.tree import Row, recipe_rows
from neva_recipes.plan import Layout, Plan, Stage
from neva_recipes.plan.cost.memory import STATE

__all__ = ["Part", "closing", "finding", "page_of", "plan_parts", "recipe_part", "tile", "tiles"]

_COLOURS = 8
"""Colours of stages and of kinds of memory, named `c0` to `c7` in the style."""

_MOST_RANKS = 1024
"""The most ranks drawn one by one; of larger jobs only the first replicas are drawn."""


class Part:
    """A part of a page: a title, and what is below it.

    Args:
        title: The title.
        *content: What is below it.
    """

    def __init__(self, title: str, *content: Element) -> None:
        self._title = title
        self._content = content

    def section(self) -> Element:
        """Return it as a card of its own."""
        return element("section", element("h2", self._title), *self._content)

    def details(self) -> Element:
        """Return it closed, to be opened within a card."""
        return element("details", element("summary", self._title), element("div", *self._content, class_="inside"))


def page_of(title: str, content: Iterable[Element], *, typed: str, moment: datetime | None) -> str:
    """Return the page of a dry run.

    Args:
        title: Name of what was looked at.
        content: What is below the title, the time and the command.
        typed: The command that was typed to get the page; empty if there is none.
        moment: The time of the command; `None` means now.
    """
    when = f"{moment or datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{title}: dry run"),
        element("style", STYLE),
    )
    body = element(
        "body",
        element("h1", title),
        element("p", f"A dry run of {when}: nothing was written or started.", class_="soft"),
        *([element("p", element("code", typed))] if typed else []),
        *content,
    )
    return document(element("html", head, body, lang="en"))


def finding(kind: str, title: str, line: str) -> Element:
    """Return a finding.

    Args:
        kind: error, warning or note.
        title: Its heading.
        line: What was found.
    """
    return element("div", element("b", title), element("div", line), class_=f"finding {kind}")


def closing(codes: Sequence[str]) -> Iterator[Element]:
    """Yield what stands below the findings: that a launch would be refused here, if it would be, for these codes."""
    if codes:
        yield element("p", refusal(codes))


def plan_parts(plan: Plan) -> Iterator[Part]:
    """Yield layout, memory, parameters, samples and cost, as far as they are known."""
    if plan.layout is not None:
        yield Part("Layout", *_layout(plan, plan.layout))
    if plan.memory:
        yield _memory_part(plan)
    yield Part("Parameters", _parameters(plan))
    yield Part("Samples", _facts(figures.length_facts(plan)))
    if plan.cost:
        yield Part("Cost: arithmetic, not a measurement", _facts(figures.cost_facts(plan)))


def _facts(facts: Iterable[figures.Fact]) -> Element:
    return element("dl", *(element(tag, text) for fact in facts for tag, text in zip(("dt", "dd"), fact, strict=True)))


def tiles(plan: Plan) -> Iterator[Element]:
    """Yield the figures of a plan that people look for first."""
    if plan.layout is not None:
        one, many = ("GPU", "GPUs") if plan.gpu_counts else ("process", "processes")
        yield tile(f"{plan.layout.world_size:,}", one if plan.layout.world_size == 1 else many)
    if plan.parameters:
        yield tile(figures.billions(figures.parameter_rows(plan)[-1][1]), "parameters")
    if not plan.gpu_counts:
        if plan.memory:
            state = max(memory.state for memory in plan.memory)
            yield tile(f"{figures.mib(state)} MiB", "weights, gradients, optimizer")
        if plan.cost is not None and plan.cost.steps is not None:
            yield tile(f"{plan.cost.steps:,}", "steps")
        return
    if plan.memory:
        fullest = max(plan.memory, key=lambda memory: memory.total).total
        yield tile(f"{figures.gib(fullest)} GiB", f"of {plan.gpu.memory_gib:g} on {plan.gpu.name}")
    if plan.cost is not None:
        yield tile(figures.duration(plan.cost.step_seconds), "a step (estimate)")
        if plan.cost.hours is not None:
            yield tile(figures.duration(3600 * plan.cost.hours), "the run (estimate)")
        if plan.cost.gpu_hours is not None:
            yield tile(figures.rounded(plan.cost.gpu_hours), "GPU hours (estimate)")


def tile(value: str, label: str) -> Element:
    """Return a figure and what it counts."""
    return element("div", element("b", value), element("span", label, class_="soft"), class_="tile")


def _layout(plan: Plan, layout: Layout) -> Iterator[Element]:
    yield _facts(figures.layout_facts(plan, layout))
    yield element("p", "The model, coloured by stage:", class_="soft")
    yield element("div", *_strip(plan, layout.stages), class_="strip")
    drawn = max(1, min(layout.data_parallel_size, _MOST_RANKS // layout.model_parallel_size))
    for stage in layout.stages:
        yield _stage(plan, layout, stage, drawn)
    if layout.num_nodes > 1:
        has = ", which has one GPU" if plan.gpu_counts else ""
        yield element("p", f"A box is a rank{has}; shaded ones are on nodes 1, 3, 5, ...", class_="soft")


def _strip(plan: Plan, stages: Sequence[Stage]) -> Iterator[Element]:
    """Yield the parts of the model in the order in which data flows through them."""
    holders = {name: stage for stage in stages for name in figures.part_names(plan, stage)}
    layers = {layer: stage for stage in stages for chunk in stage.chunks for layer in chunk}
    output = holders.pop("output")
    for name, stage in (*holders.items(), *sorted(layers.items()), ("output", output)):
        what = name if isinstance(name, str) else f"layer {name}"
        yield element("span", str(name), class_=_colour("c", stage.index), title=f"{what}: stage {stage.index}")


def _colour(kind: str, number: int) -> str:
    return f"{kind}{number % _COLOURS}"


def _stage(plan: Plan, layout: Layout, stage: Stage, drawn: int) -> Element:
    holds = ", ".join([f"layers {figures.layer_text(stage)}", *figures.part_names(plan, stage)])
    ranks: dict[int, list[Element]] = {}
    for where in layout.ranks:
        if where.pipeline == stage.index and where.data < drawn:
            title = (
                f"rank {where.rank}: node {where.node}, stage {where.pipeline}, replica {where.data}, "
                f"context part {where.context}, tensor part {where.tensor}"
            )
            odd = " odd" if where.node % 2 else ""
            ranks.setdefault(where.data, []).append(element("span", str(where.rank), class_=f"rank{odd}", title=title))
    replicas = [
        element("div", element("small", f"replica {data}"), element("div", *boxes, class_="ranks"), class_="replica")
        for data, boxes in ranks.items()
    ]
    left = layout.data_parallel_size - drawn
    more = [element("p", f"and {left:,} replicas like these", class_="soft")] if left else []
    return element(
        "div",
        element("h3", f"Stage {stage.index}"),
        element("p", holds, class_="holds"),
        element("div", *replicas, class_="replicas"),
        *more,
        class_=f"stage {_colour('k', stage.index)}",
    )


def _memory_part(plan: Plan) -> Part:
    if plan.gpu_counts:
        return Part("Memory of a GPU at its fullest", *_memory(plan))
    header = ("stage", *STATE, "total")
    rows = [element("tr", *(element("th", text) for text in header))]
    for group in figures.memory_groups(plan):
        counts = [*(group.memory.bytes[name] for name in STATE), group.memory.state]
        cells = [figures.range_text(group.stages), *map(figures.mib, counts)]
        rows.append(element("tr", *(element("td", text) for text in cells)))
    facts = _facts(figures.memory_facts(plan))
    return Part("Memory of a process, as far as it is known, in MiB", element("table", *rows), facts)


def _memory(plan: Plan) -> Iterator[Element]:
    yield _facts(figures.memory_facts(plan))
    limit = plan.gpu.memory_gib * 2**30
    scale = max(limit, *(memory.total for memory in plan.memory)) * 1.02  # room for the mark at the limit
    for group in figures.memory_groups(plan):
        total = group.memory.total
        share = element("span", f"{figures.gib(total)} GiB, {figures.percent(total / limit)}")
        if total > limit:
            share.set("class", "over")
        bar, legend = [], []
        for number, (name, count) in enumerate(group.memory.bytes.items()):
            colour, text = _colour("c", number), f"{name} {figures.gib(count)}"
            bar.append(element("span", class_=colour, style=f"width:{100 * count / scale:.2f}%", title=f"{text} GiB"))
            legend.append(element("span", element("i", class_=colour), text))
        mark = element("span", class_="limit", style=f"left:{100 * limit / scale:.2f}%", title="what the GPU has")
        yield element(
            "div",
            element("div", element("h3", figures.stage_text(group.stages).capitalize()), share, class_="head"),
            element("div", element("div", *bar, class_="bar"), mark, class_="scale"),
            _limit_label(f"{plan.gpu.name}: {plan.gpu.memory_gib:g} GiB", limit / scale),
            element("div", *legend, class_="legend"),
            class_="memory",
        )


def _limit_label(text: str, position: float) -> Element:
    """Return the label below the mark of the limit, on the side with more space."""
    side, free = ("right", 1 - position) if position > 0.5 else ("left", position)
    return element("div", text, class_="limit-label", style=f"text-align:{side};padding-{side}:{100 * free:.2f}%")


def _parameters(plan: Plan) -> Element:
    rows = [element("tr", *(element("th", text) for text in ("part", "weights", "trained")))]
    for part, total, trained in figures.parameter_rows(plan):
        rows.append(element("tr", *(element("td", text) for text in (part, f"{total:,}", f"{trained:,}"))))
    return element("table", *rows)


def recipe_part(title: str, work: DraftNode) -> Part:
    """Return the fields of a recipe or of a tool, with their sources."""
    return Part(title, *_recipe(work))


def _recipe(work: DraftNode) -> Iterator[Element]:
    yield element("p", "Each value and where it comes from; shaded ones were set on the command line.", class_="soft")
    root = element("div", class_="tree")
    groups = {"": root}
    for row in recipe_rows(work):
        parent = groups[row.path.rpartition(".")[0]]
        if row.source is None:
            label = f"{row.name} ({row.value})" if row.value else row.name
            groups[row.path] = element("details", element("summary", label), open="")
            parent.append(groups[row.path])
        else:
            parent.append(_field(row))
    yield root


def _field(row: Row) -> Element:
    assert row.source is not None  # groups have none
    given = row.source.kind == "command line"
    source = element("span", row.origin, class_="source")
    if row.source.file is not None:
        source.set("title", f"{row.source.file}:{row.source.line or ''}")
    if row.source.kind == "default":
        source.set("class", "source default")
    value = element("span", row.value or "''", class_="value")
    return element("div", element("span", row.name), value, source, class_="row given" if given else "row")
