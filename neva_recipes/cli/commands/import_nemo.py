"""Imports NeMo configurations: `nemo-run import-nemo CONFIG.yaml`."""

import keyword
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from neva_recipes.cli.arguments import StrictParser, UsageError, path_argument, split_overrides
from neva_recipes.config import RecipeError, build, make_folder_of
from neva_recipes.terminal import print_line, print_text, tell

__all__ = ["import_nemo_command"]


def import_nemo_command(argv: Sequence[str]) -> int:
    """Write a recipe from a NeMo configuration: `nemo-run import-nemo CONFIG.yaml [KEY=VALUE ...]`."""
    parser = StrictParser(
        "nemo-run import-nemo",
        description=(
            "Turn a NeVA configuration of NeMo 1.0 into a recipe in Python, and say what\n"
            "became of every key. docs/nemo.md has the table of keys."
        ),
    )
    parser.add_argument(
        "config", metavar="CONFIG", type=path_argument, help="NeMo's YAML file, such as neva_config.yaml"
    )
    parser.add_argument(
        "overrides", metavar="KEY=VALUE", nargs="*", default=[], help="keys that NeMo's command line would set"
    )
    parser.add_argument(
        "--output", metavar="F", type=path_argument, default=Path("recipe.py"), help="file to write (recipe.py)"
    )
    parser.add_argument("--name", metavar="N", help="name of the recipe (that of the configuration)")
    arguments = parser.parse(argv)
    # Imported here because only this command needs the tables of keys.
    from neva_recipes.nemo import read_configuration, render, translate
    from neva_recipes.plan import check_recipe

    output: Path = arguments.output
    values = read_configuration(arguments.config, split_overrides(arguments.overrides))
    _refuse_output(output)
    translation = translate(values)
    name = _own_name(values) if arguments.name is None else _given_name(arguments.name)
    _refuse_built_in(name, output)
    findings = check_recipe(build(translation.recipe(name)))
    problems = [finding.line() for finding in findings if finding.severity == "error"]
    _write(output, render(translation, name, arguments.config, problems))

    there = [fate for fate in translation.fates if fate.in_file]
    carried, same = (sum(fate.kind == kind for fate in there) for kind in ("carried", "same"))
    # What needs a look comes last, nearest to the prompt.
    _say("left out", (fate.line() for fate in translation.of_kind("left")))
    _say("assumed", translation.assumption_lines())
    _say("NeMo's default", translation.nemo_defaults())
    _say("unknown key", (fate.line() for fate in translation.of_kind("unknown")))
    _say("cannot carry", (fate.line() for fate in translation.of_kind("cannot")))
    _say("will not run", problems)
    others = len(there) - carried - same
    print_line(f"{len(there)} keys: {carried} carried, {same} need no setting, {others} named above", sys.stderr)
    print_text(f"{output} holds the recipe {name}, and what became of every key; next:")
    print_text(f"  {shlex.join(['nemo-run', name, '--recipes', str(output), '--dry-run'])}")
    return 0


def _say(what: str, lines: Iterable[str]) -> None:
    for line in lines:
        tell(what, line)


def _refuse_output(output: Path) -> None:
    if output.suffix != ".py":
        raise UsageError(f"--output {output}: expected a Python file whose name ends in .py")
    if output.exists():
        raise UsageError(f"{output} is there already: name another file with --output")


def _write(output: Path, text: str) -> None:
    try:
        make_folder_of(output)
        with output.open("x", encoding="utf-8") as file:
            try:
                file.write(text)
                file.flush()
            except OSError:
                output.unlink()
                raise
    except OSError as error:
        raise RecipeError(f"{output}: cannot be written: {error.strerror}") from None


def _refuse_built_in(name: str, output: Path) -> None:
    from neva_recipes.registry import list_recipes

    if any(entry.name == f"{output.stem}.{name}" for entry in list_recipes()):
        raise UsageError(f"{output.stem}.{name} is a built-in recipe: choose another --name or --output")


def _given_name(name: str) -> str:
    from neva_recipes.nemo.rendering import IMPORTED_NAMES

    if not _is_name(name):
        raise UsageError(f"--name {name}: expected a name of letters, digits and underscores that begins with a letter")
    if name in IMPORTED_NAMES:
        raise UsageError(f"--name {name}: the file imports something of that name: choose another")
    return name


def _own_name(values: Mapping[str, object]) -> str:
    """Return the name of a configuration as a Python name, or `imported` if that is impossible."""
    from neva_recipes.nemo.rendering import IMPORTED_NAMES

    found = values.get("exp_manager.name") or values.get("name")
    name = re.sub(r"\W", "_", str(found)).strip("_")
    return name if _is_name(name) and name not in IMPORTED_NAMES else "imported"


def _is_name(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("_")
