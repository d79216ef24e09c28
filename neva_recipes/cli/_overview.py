"""What can be run: the first screen, and the list of recipes."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from neva_recipes.cli._arguments import StrictParser
from neva_recipes.config import UserError
from neva_recipes.registry import RecipeEntry, list_pipelines, list_recipes

__all__ = ["list_command", "recipe_overview"]


def recipe_overview(file: Path | None) -> str:
    """Return the answer to "what can I run", with the recipes of a Python file first."""
    entries = list_recipes(file)
    example = shlex.join([entries[0].name, "--recipes", str(file)]) if file else "llava.finetune"
    return "\n".join(
        [
            "nemo-run trains vision-language models on Megatron-Core.",
            "",
            "Recipes:",
            *_lines([*entries, *list_pipelines(file)]),
            "",
            "Try:",
            f"  nemo-run {example} --help",
            "      every field, its default and meaning",
            f"  nemo-run {example} --dry-run",
            "      the whole recipe, its plan and its script; starts nothing",
            f"  nemo-run {example} data.data_path=train.json",
            "      starts it, with a field changed",
            "",
            "nemo-run --help lists all commands and flags.",
        ]
    )


def list_command(argv: Sequence[str]) -> int:
    """Print the recipes: `nemo-run list`."""
    parser = StrictParser("nemo-run list", description="Recipes that can be run, and where each comes from.")
    parser.add_argument("--recipes", metavar="F", type=Path, help="Python file with recipes of your own")
    file = parser.parse(argv).recipes
    entries = [*list_recipes(file), *list_pipelines(file)]
    for origin in dict.fromkeys(entry.origin for entry in entries):
        print(f"{origin}:", *_lines([entry for entry in entries if entry.origin == origin]), sep="\n")
    return 0


def _lines(entries: Sequence[RecipeEntry]) -> Iterator[str]:
    width = max(len(entry.name) for entry in entries)
    for entry in entries:
        try:
            summary = " ".join(entry.description.partition("\n\n")[0].split())
        except UserError as error:
            summary = f"cannot be used: {error}"
        yield f"  {entry.name:<{width}}  {summary}".rstrip()
