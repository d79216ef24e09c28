"""Looking at a recipe instead of running it: `nemo-run RECIPE --dry-run`."""

import io
import os
import sys
from typing import TYPE_CHECKING

from neva_recipes.config import recipe_to_yaml, with_absolute_inputs

if TYPE_CHECKING:
    from neva_recipes.inspection import Inspection

__all__ = ["FORMATS", "show"]

FORMATS = ("text", "yaml", "json", "python", "html")
"""What a recipe can be printed as."""


def show(inspection: "Inspection", form: str) -> int:
    """Print a recipe and what was found about it, and return the exit code: 2 if a launch would be refused.

    The document goes to stdout, findings and remarks to stderr, so that stdout can be written to a file.

    Args:
        inspection: The recipe, looked at.
        form: One of `FORMATS`.
    """
    if form != "text" and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # what programs read is UTF-8, whatever the terminal shows
    print(_document(inspection, form), end="", flush=True)
    remark = "--dry-run wrote and started nothing"
    if form == "text" and inspection.script is not None:
        remark += "; the script above does, run by sh"
        if not _can_show(inspection.script):
            print("note: the script has characters that are not shown here; --format html has them", file=sys.stderr)
    print(f"note: {remark}", file=sys.stderr)
    for kind, findings in reversed(inspection.by_kind().items()):
        for finding in findings:
            print(f"{kind}: {finding.line()}", file=sys.stderr)
    return 2 if inspection.errors else 0


def _document(inspection: "Inspection", form: str) -> str:
    from neva_recipes.inspection import inspection_to_json, inspection_to_text, recipe_to_python

    if form == "text":
        return inspection_to_text(inspection, colour=_shows_colour())
    if form == "json":
        return inspection_to_json(inspection)
    if form == "html":
        from neva_recipes.inspection.page import inspection_to_html

        return inspection_to_html(inspection)
    recipe = with_absolute_inputs(inspection.recipe)
    return recipe_to_yaml(recipe) if form == "yaml" else recipe_to_python(recipe)


def _shows_colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _can_show(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
