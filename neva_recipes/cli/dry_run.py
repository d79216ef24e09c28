"""Show a recipe instead of running it: `nemo-run RECIPE --dry-run`."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from neva_recipes.config import recipe_to_yaml, with_absolute_inputs
from neva_recipes.run_directory.exit_codes import EXIT_MISTAKE
from neva_recipes.terminal import print_document, shows_colour, streams_are_one, tell, visible

if TYPE_CHECKING:
    from neva_recipes.inspection import Inspection

__all__ = ["FORMATS", "close", "print_for_programs", "show", "show_script"]

FORMATS = ("text", "yaml", "json", "python", "html")
"""The formats in which a recipe can be printed."""


def show(inspection: "Inspection", form: str, *, typed: str = "", remark: str = "", notes: Sequence[str] = ()) -> int:
    """Print a recipe and its findings, and return the exit code: 2 if a launch would be refused anywhere.

    The document goes to stdout, findings and remarks to stderr, so that stdout can be written to a file. The text
    format also contains the findings; if both streams go to the same terminal or file, they are printed only once.
    Errors are printed after all notes and warnings, and only the closing remarks after them.

    Args:
        inspection: The inspection of the recipe.
        form: One of `FORMATS`.
        typed: The command that was typed, for the page; empty to leave it out.
        remark: Text to append to the note that nothing was started.
        notes: Further notes, printed before the findings.
    """
    if form == "text":
        _show_text(inspection, notes)
    else:
        print_for_programs(_document(inspection, form, typed))
        sys.stdout.flush()
        _tell_notes(notes)
        _tell_findings(inspection)
    close(inspection.refused_here, remark)
    return EXIT_MISTAKE if inspection.errors else 0


def close(refused_here: Sequence[str], remark: str = "") -> None:
    """Print what comes last in a dry run: that nothing was started, and whether a launch could start it here.

    Args:
        refused_here: Codes of the findings that were told as notes, for which a launch would be refused here.
        remark: Text to append to the note that nothing was started.
    """
    _tell_refusal(refused_here)
    tell("note", f"--dry-run wrote and started nothing{remark}")


def _tell_refusal(codes: Sequence[str]) -> None:
    if codes:
        from neva_recipes.inspection.inspection import refusal

        tell("note", refusal(codes))


def _show_text(inspection: "Inspection", notes: Sequence[str]) -> None:
    from neva_recipes.inspection.text import findings_to_text, plan_to_text

    colour = shows_colour()
    plan, findings = (visible(text(inspection, colour), colours=colour) for text in (plan_to_text, findings_to_text))
    if not streams_are_one():
        print_document(f"{plan}\n{findings}")
        sys.stdout.flush()
        _tell_notes(notes)
        _tell_findings(inspection)
        return
    print_document(f"{plan}\n")
    sys.stdout.flush()
    _tell_notes(notes)
    print_document(f"\n{findings}" if notes else findings)
    sys.stdout.flush()


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
    _tell_refusal(inspection.refused_here)
    return EXIT_MISTAKE if inspection.errors else 0


def _tell_notes(notes: Sequence[str]) -> None:
    for line in notes:
        tell("note", line)


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


def _document(inspection: "Inspection", form: str, typed: str) -> str:
    from neva_recipes.inspection import inspection_to_json, recipe_to_python

    if form == "json":
        return inspection_to_json(inspection)
    if form == "html":
        from neva_recipes.inspection.page import inspection_to_html

        return inspection_to_html(inspection, typed=typed)
    recipe = with_absolute_inputs(inspection.recipe)
    return recipe_to_yaml(recipe) if form == "yaml" else recipe_to_python(recipe)
