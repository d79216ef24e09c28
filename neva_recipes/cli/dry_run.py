"""Show a recipe instead of running it: `nemo-run RECIPE --dry-run`."""

import os
import sys
from typing import TYPE_CHECKING

from neva_recipes.config import recipe_to_yaml, with_absolute_inputs
from neva_recipes.run_directory.exit_codes import EXIT_MISTAKE
from neva_recipes.terminal import print_document, shows_colour, tell, visible

if TYPE_CHECKING:
    from neva_recipes.inspection import Inspection

__all__ = ["FORMATS", "print_for_programs", "show", "show_script"]

FORMATS = ("text", "yaml", "json", "python", "html")
"""The formats in which a recipe can be printed."""


def show(inspection: "Inspection", form: str, *, typed: str = "", remark: str = "") -> int:
    """Print a recipe and its findings, and return the exit code: 2 if a launch would be refused.

    The document goes to stdout, findings and remarks to stderr, so that stdout can be written to a file. The text
    format also contains the findings; if both streams go to the same terminal or file, they are printed only once.

    Args:
        inspection: The inspection of the recipe.
        form: One of `FORMATS`.
        typed: The command that was typed, for the page; empty to leave it out.
        remark: Text to append to the note that nothing was started.
    """
    if form == "text":
        from neva_recipes.inspection import inspection_to_text

        colour = shows_colour()
        print_document(visible(inspection_to_text(inspection, colour=colour), colours=colour))
    else:
        print_for_programs(_document(inspection, form, typed))
    sys.stdout.flush()
    tell("note", f"--dry-run wrote and started nothing{remark}")
    if form != "text" or not _go_to_one_place():
        _tell_findings(inspection)
    return EXIT_MISTAKE if inspection.errors else 0


def show_script(inspection: "Inspection") -> int:
    """Print only the shell script that starts a recipe, and return the exit code: 2 if there is none."""
    script = inspection.script
    if script is None:
        _tell_findings(inspection)
        tell("error", "--script: there is no script, since the errors above keep the recipe from being started")
        return EXIT_MISTAKE
    if sys.stdout.isatty():
        print_document(visible(script))
        if visible(script) != script:
            tell("note", "the script has characters that a terminal does not show: write it to a file")
    else:
        print_for_programs(script, "surrogateescape")  # paths keep their bytes
    sys.stdout.flush()
    _tell_findings(inspection)
    return EXIT_MISTAKE if inspection.errors else 0


def _tell_findings(inspection: "Inspection") -> None:
    for kind, findings in reversed(inspection.by_kind().items()):
        for finding in findings:
            tell(kind, finding.line())


def print_for_programs(text: str, errors: str = "strict") -> None:
    """Print a text in UTF-8, whatever the terminal's encoding.

    Args:
        text: The text.
        errors: How to handle characters that UTF-8 has not, as in `str.encode`.
    """
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        reconfigure(encoding="utf-8", errors=errors)
    print_document(text)


def _go_to_one_place() -> bool:
    """Return whether standard output and standard error are the same terminal, file or pipe."""
    try:
        return os.path.sameopenfile(1, 2)
    except OSError:
        return False


def _document(inspection: "Inspection", form: str, typed: str) -> str:
    from neva_recipes.inspection import inspection_to_json, recipe_to_python

    if form == "json":
        return inspection_to_json(inspection)
    if form == "html":
        from neva_recipes.inspection.page import inspection_to_html

        return inspection_to_html(inspection, typed=typed)
    recipe = with_absolute_inputs(inspection.recipe)
    return recipe_to_yaml(recipe) if form == "yaml" else recipe_to_python(recipe)
