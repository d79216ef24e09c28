"""What `--format html` prints: one page that needs nothing else, with the layout drawn and memory as bars."""

from collections.abc import Iterable, Iterator, Sequence

from neva_recipes.config import format_value
from neva_recipes.inspection import figures
from neva_recipes.inspection._elements import Element, document, element
from neva_recipes.inspection._page_style import STYLE
from neva_recipes.inspection.inspection import Inspection
from neva_recipes.inspection.tree import Row, recipe_rows
from neva_recipes.plan import Layout, Plan, Stage

__all__ = ["inspection_to_html"]

_COLOURS = 8
"""Colours of stages and of kinds of memory, named `c0` to `c7` in the style."""

_MOST_RANKS = 1024
"""Ranks drawn one by one; of larger jobs the first replicas stand for the others."""


def inspection_to_html(inspection: Inspection) -> str:
    """Return the page: findings, layout, memory, parameters, samples, cost, the recipe with its sources, the script."""
    plan = inspection.plan
    title = f"{plan.recipe.name}: dry run"
    sections = [
        _section("Findings", *_findings(inspection)),
        *([_section("Layout", *_layout(plan, plan.layout))] if plan.layout is not None else []),
        *([_section("Memory of a GPU at its fullest", *_memory(plan))] if plan.memory else []),
        _section("Parameters", _parameters(plan)),
        _section("Samples", _facts(figures.length_facts(plan))),
        *([_section("Cost: arithmetic, not a measurement", _facts(figures.cost_facts(plan)))] if plan.cost else []),
        _section("Recipe", *_recipe(inspection)),
        _section("Script", *_script(inspection)),
    ]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", STYLE),
    )
    body = element(
        "body",
        element("h1", plan.recipe.name),
        element("p", "A dry run: nothing was written or started.", class_="soft"),
        element("div", *_tiles(plan), class_="tiles"),
        *sections,
    )
    return document(element("html", head, body, lang="en"))


def _section(title: str, *content: Element) -> Element:
    return element("section", element("h2", title), *content)


def _facts(facts: Iterable[figures.Fact]) -> Element:
    return element("dl", *(element(tag, text) for fact in facts for tag, text in zip(("dt", "dd"), fact, strict=True)))


def _tiles(plan: Plan) -> Iterator[Element]:
    """Yield the figures that people look for first."""
    if plan.layout is not None:
        yield _tile(f"{plan.layout.world_size:,}", "GPUs")
    if plan.parameters:
        yield _tile(figures.billions(figures.parameter_rows(plan)[-1][1]), "parameters")
    if plan.memory:
        fullest = max(plan.memory, key=lambda memory: memory.total).total
        yield _tile(f"{figures.gib(fullest)} GiB", f"of {plan.gpu.memory_gib:g} on {plan.gpu.name}")
    if plan.cost is not None:
        yield _tile(figures.duration(plan.cost.step_seconds), "a step (estimate)")
        if plan.cost.hours is not None:
            yield _tile(figures.duration(3600 * plan.cost.hours), "the run (estimate)")
        if plan.cost.gpu_hours is not None:
            yield _tile(figures.rounded(plan.cost.gpu_hours), "GPU hours (estimate)")


def _tile(value: str, label: str) -> Element:
    return element("div", element("b", value), element("span", label, class_="soft"), class_="tile")


def _findings(inspection: Inspection) -> Iterator[Element]:
    found = inspection.by_kind()
    for kind, findings in found.items():
        for finding in findings:
            heading = element("b", f"{kind}: {finding.code}")
            yield element("div", heading, element("div", finding.line()), class_=f"finding {kind}")
    if not any(found.values()):
        yield element("p", "none")


def _layout(plan: Plan, layout: Layout) -> Iterator[Element]:
    yield _facts(figures.layout_facts(plan, layout))
    yield element("p", "The model, coloured by stage:", class_="soft")
    yield element("div", *_strip(plan, layout.stages), class_="strip")
    drawn = max(1, min(layout.data_parallel_size, _MOST_RANKS // layout.model_parallel_size))
    for stage in layout.stages:
        yield _stage(plan, layout, stage, drawn)
    if layout.num_nodes > 1:
        yield element("p", "A box is a rank, which has one GPU; shaded ones are on nodes 1, 3, 5, ...", class_="soft")


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
            element("div", *legend, class_="legend"),
            class_="memory",
        )


def _parameters(plan: Plan) -> Element:
    rows = [element("tr", *(element("th", text) for text in ("part", "weights", "trained")))]
    for part, total, trained in figures.parameter_rows(plan):
        rows.append(element("tr", *(element("td", text) for text in (part, f"{total:,}", f"{trained:,}"))))
    return element("table", *rows)


def _recipe(inspection: Inspection) -> Iterator[Element]:
    yield element("p", "Each value and where it comes from; shaded ones were set on the command line.", class_="soft")
    root = element("div", class_="tree")
    groups = {"": root}
    for row in recipe_rows(inspection.recipe):
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
    was = f", was {format_value(row.source.replaced)}" if given else ""
    source = element("span", f"{row.source}{was}", class_="source")
    if row.source.file is not None:
        source.set("title", f"{row.source.file}:{row.source.line or ''}")
    if row.source.kind == "default":
        source.set("class", "source default")
    value = element("span", row.value or "''", class_="value")
    return element("div", element("span", row.name), value, source, class_="row given" if given else "row")


def _script(inspection: Inspection) -> Iterator[Element]:
    if inspection.script is None:
        yield element("p", "None, since it would not be started: see Findings.")
        return
    yield element("p", "Pasted into a shell it writes the run directory and starts it.", class_="soft")
    yield element("pre", inspection.script)
