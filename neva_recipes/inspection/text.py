"""The output of `--format text`: 80 columns, readable in a terminal, a pipe and a mail."""

from collections.abc import Callable, Iterable, Iterator

from neva_recipes.config import Draft, Recipe
from neva_recipes.inspection import figures
from neva_recipes.inspection.inspection import Inspection
from neva_recipes.inspection.tree import Row, recipe_rows
from neva_recipes.plan import Finding, Layout, Plan
from neva_recipes.plan.cost.memory import STATE
from neva_recipes.terminal import fold

__all__ = ["findings_to_text", "inspection_to_text", "plan_to_text", "recipe_to_text"]

_WIDTH = 80
_SOURCE_COLUMN = 56
_BAR = 50

_COLOURS = {"error": "31", "warning": "33", "note": "1"}

_Paint = Callable[..., str]
"""Takes a text and ANSI codes: bold is 1, dim 2, red 31, green 32, yellow 33."""


def _plain(text: str, *codes: str) -> str:
    return text


def _ansi(text: str, *codes: str) -> str:
    return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if codes else text


def inspection_to_text(inspection: Inspection, colour: bool = False) -> str:
    """Return the recipe with its sources, what would be started, the plan, and the findings, with errors last."""
    return f"{plan_to_text(inspection, colour)}\n{findings_to_text(inspection, colour)}"


def plan_to_text(inspection: Inspection, colour: bool = False) -> str:
    """Return the recipe with its sources, what would be started, and the plan."""
    plan, paint = inspection.plan, _ansi if colour else _plain
    blocks = [
        recipe_to_text(inspection.recipe, colour),
        _command(inspection, paint),
        *(_block(title, lines, paint) for title, lines in _plan_blocks(plan, paint)),
    ]
    return "\n".join(blocks)


def findings_to_text(inspection: Inspection, colour: bool = False) -> str:
    """Return the findings with their codes, errors last."""
    paint = _ansi if colour else _plain
    return _block("Findings", _findings(inspection, paint), paint)


def recipe_to_text(recipe: Draft[Recipe], colour: bool = False) -> str:
    """Return a recipe as a tree in which every field has its value and its source."""
    paint = _ansi if colour else _plain
    title = "Recipe: each value and where it comes from (* set on the command line)"
    return _block(title, (line for row in recipe_rows(recipe) for line in _row(row, paint)), paint)


def _block(title: str, lines: Iterable[str], paint: _Paint) -> str:
    return "\n".join([paint(title, "1"), *lines]) + "\n"


def _row(row: Row, paint: _Paint) -> Iterator[str]:
    indent = "  " * (row.depth + 1)
    if row.source is None:
        yield f"{indent}{paint(row.name, '1')}" + (f" ({row.value})" if row.value else "")
        return
    given = row.source.kind == "command line"
    setting = f"{'* ' if given else '  '}{indent[2:]}{row.name}: {row.value or repr('')}"
    codes = ("33",) if given else ("2",) if row.source.kind == "default" else ()
    source = row.origin
    if len(setting) + 2 <= _SOURCE_COLUMN and len(source) <= _WIDTH - _SOURCE_COLUMN:
        yield paint(f"{setting:<{_SOURCE_COLUMN}}{source}", *codes)
    elif len(setting) + 2 + len(source) <= _WIDTH:
        yield paint(f"{setting}{source:>{_WIDTH - len(setting)}}", *codes)
    else:
        further = f"{indent}    "
        if "/" in row.value and len(setting) > _WIDTH:  # keep a path whole, so that it can be copied
            lines = [setting.removesuffix(f" {row.value}"), f"{further}{row.value}"]
        else:
            lines = fold(setting, _WIDTH, "", further)
        for line in lines:
            yield paint(line, *codes)
        for line in fold(source, _WIDTH - _SOURCE_COLUMN):
            # The name of a file is not broken, and may be longer than its column.
            yield paint(f"{'':<{max(0, min(_SOURCE_COLUMN, _WIDTH - len(line)))}}{line}", *codes)


def _plan_blocks(plan: Plan, paint: _Paint) -> Iterator[tuple[str, Iterable[str]]]:
    if plan.layout is not None:
        yield "Layout", [*_facts(figures.layout_facts(plan, plan.layout)), *_stages(plan, plan.layout)]
    if plan.parameters:
        rows = [(part, f"{total:,}", f"{trained:,}") for part, total, trained in figures.parameter_rows(plan)]
        yield "Parameters", _table(("part", "weights", "trained"), rows)
    if plan.memory:
        if plan.gpu_counts:
            yield "Memory of a GPU at its fullest, in GiB", _memory(plan, paint)
        else:
            yield "Memory of a process, as far as it is known, in MiB", _state(plan)
    yield "Samples", _facts(figures.length_facts(plan))
    if plan.cost is not None:
        yield "Cost: arithmetic, not a measurement", _facts(figures.cost_facts(plan))


def _facts(facts: Iterable[figures.Fact]) -> Iterator[str]:
    for label, value in facts:
        first, *others = fold(value, _WIDTH - 14)
        yield f"  {label:<12}{first}"
        yield from (f"{'':<14}{line}" for line in others)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Yield the lines of a table; the first column is text, the other columns are numbers."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    gap = "  " if 2 + sum(widths) + 2 * len(widths) <= _WIDTH else " "
    for first, *others in lines:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        yield f"  {gap.join([f'{first:<{widths[0]}}', *cells])}".rstrip()


def _stages(plan: Plan, layout: Layout) -> Iterator[str]:
    for stage in layout.stages:
        ranks = figures.rank_ranges(layout, stage)
        parts = ", ".join([f"layers {figures.layer_text(stage)}", *figures.part_names(plan, stage)])
        prefix = f"stage {stage.index}, rank{'s' if '-' in ranks else ''} {ranks}: "
        yield from fold(f"  {prefix}{parts}", _WIDTH, "", "    ")
    if layout.data_parallel_size > 1 and layout.world_size > layout.data_parallel_size:
        yield from _replicas(layout)


def _replicas(layout: Layout) -> Iterator[str]:
    """Yield a table of the ranks by stage and replica; if it is too wide, replicas in the middle are left out."""
    ranks: dict[tuple[int, int], list[int]] = {}
    for where in layout.ranks:
        ranks.setdefault((where.pipeline, where.data), []).append(where.rank)
    cells = {place: f"{min(found)}-{max(found)}" if len(found) > 1 else str(found[0]) for place, found in ranks.items()}
    room = (_WIDTH - len("  stage 00")) // (max(map(len, cells.values())) + 2)
    last = layout.data_parallel_size - 1
    shown: list[int | None] = [*range(last + 1)]
    if len(shown) > room:
        shown = [*range(room - 2), None, last]
    yield from _table(
        ("replica", *("..." if replica is None else str(replica) for replica in shown)),
        [
            (
                f"stage {stage.index}",
                *("..." if replica is None else cells[stage.index, replica] for replica in shown),
            )
            for stage in layout.stages
        ],
    )


def _state(plan: Plan) -> Iterator[str]:
    groups = figures.memory_groups(plan)
    rows = [(*(group.memory.bytes[name] for name in STATE), group.memory.state) for group in groups]
    yield from _table(
        ("stage", *STATE, "total"),
        [(figures.range_text(group.stages), *map(figures.mib, row)) for group, row in zip(groups, rows, strict=True)],
    )
    yield from _facts(figures.memory_facts(plan))


def _memory(plan: Plan, paint: _Paint) -> Iterator[str]:
    groups = figures.memory_groups(plan)
    yield from _facts(figures.memory_facts(plan))
    yield from _table(
        ("stage", *groups[0].memory.bytes, "total"),
        [
            (
                figures.range_text(group.stages),
                *map(figures.gib, group.memory.bytes.values()),
                figures.gib(group.memory.total),
            )
            for group in groups
        ],
    )
    width = max(len(figures.range_text(group.stages)) for group in groups)
    for group in groups:
        share = group.memory.total / (plan.gpu.memory_gib * 2**30)
        filled = min(_BAR, round(_BAR * share))
        bar = paint("#" * filled, "31" if share > 1 else "32") + "." * (_BAR - filled)
        at_least = group.memory.least / (plan.gpu.memory_gib * 2**30)
        verdict = "" if share <= 1 else "  too much" if at_least > 1 else "  may be too much"
        yield f"  {figures.range_text(group.stages):<{width}}  [{bar}] {figures.percent(share)}{verdict}"


def _findings(inspection: Inspection, paint: _Paint) -> Iterator[str]:
    kinds = inspection.by_kind()
    for kind, findings in reversed(kinds.items()):  # errors come last, nearest to the prompt
        for finding in findings:
            yield f"  {paint(kind, _COLOURS[kind])}: {finding.code}"
            yield from _wrapped(finding)
    if not any(kinds.values()):
        yield "  none"


def _wrapped(finding: Finding) -> list[str]:
    """Return the text of a finding in lines; text that may be pasted is never broken."""
    return fold(finding.line(), _WIDTH, "    ")


def _command(inspection: Inspection, paint: _Paint) -> str:
    if inspection.command is None:
        return _block("Command: none, since it would not be started (see Findings)", (), paint)
    title, text = inspection.command
    return _block(title, (f"  {line}".rstrip() for line in text.splitlines()), paint)
