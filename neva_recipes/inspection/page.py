"""The output of `--format html`: one self-contained page, with the layout drawn and memory as bars."""

from collections.abc import Iterator
from datetime import datetime

from neva_recipes.html import Element, element
from neva_recipes.inspection._page_parts import Part, closing, finding, page_of, plan_parts, recipe_part, tiles
from neva_recipes.inspection.inspection import Inspection

__all__ = ["inspection_to_html"]


def inspection_to_html(inspection: Inspection, *, typed: str = "", moment: datetime | None = None) -> str:
    """Return the page: findings, layout, memory, parameters, samples, cost, the recipe with its sources, the script.

    Args:
        inspection: The inspection of the recipe.
        typed: The command that was typed to get the page; empty if there is none.
        moment: The time of the command; `None` means now.
    """
    plan = inspection.plan
    parts = [
        Part("Findings", *_findings(inspection)),
        *plan_parts(plan),
        recipe_part("Recipe", inspection.recipe),
        Part("Script", *_script(inspection)),
    ]
    content = [element("div", *tiles(plan), class_="tiles"), *(part.section() for part in parts)]
    return page_of(plan.recipe.name, content, typed=typed, moment=moment)


def _findings(inspection: Inspection) -> Iterator[Element]:
    by_kind = inspection.by_kind()
    for kind, findings in by_kind.items():
        for found in findings:
            yield finding(kind, f"{kind}: {found.code}", found.line())
    if not any(by_kind.values()):
        yield element("p", "none")
    yield from closing(inspection.refused_here)


def _script(inspection: Inspection) -> Iterator[Element]:
    if inspection.script is None:
        yield element("p", "None, since it would not be started: see Findings.")
        return
    yield element("p", "Pasted into a shell it writes the run directory and starts it.", class_="soft")
    yield element("pre", inspection.script)
