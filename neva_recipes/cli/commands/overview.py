"""Shows what can be run: the first screen, and the list of recipes."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from neva_recipes.cli.arguments import StrictParser, add_recipes, flag_words, wrap
from neva_recipes.config import UserError
from neva_recipes.registry import RecipeEntry, list_pipelines, list_recipes

__all__ = ["list_command", "recipe_overview"]


def recipe_overview(files: Sequence[Path]) -> str:
    """Return the answer to "what can I run", with recipes from Python files first."""
    entries = list_recipes(files)
    example = shlex.join([entries[0].name, *flag_words(recipes=files)]) if files else "llava.finetune"
    return "\n".join(
        [
            "nemo-run trains vision-language models on Megatron-Core.",
            "",
            "Recipes:",
            *_lines([*entries, *list_pipelines(files)]),
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
    add_recipes(parser, "recipes")
    files = parser.parse(argv).recipes
    entries = [*list_recipes(files), *list_pipelines(files)]
    for origin in dict.fromkeys(entry.origin for entry in entries):
        print(f"{origin}:", *_lines([entry for entry in entries if entry.origin == origin]), sep="\n")
    return 0


def _lines(entries: Sequence[RecipeEntry]) -> Iterator[str]:
    width = max(len(entry.name) for entry in entries)
    indent = " " * (width + 4)
    for entry in entries:
        try:
            summary = " ".join(entry.description.partition("\n\n")[0].split())
        except UserError as error:
            summary = f"cannot be used: {error}"
        yield f"  {entry.name:<{width}}  {wrap(summary, indent).lstrip()}".rstrip()
