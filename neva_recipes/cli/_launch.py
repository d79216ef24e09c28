"""Running a recipe: `nemo-run RECIPE [key=value ...]`."""

import argparse
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import fiddle as fdl

from neva_recipes.cli._arguments import StrictParser, UsageError, add_runs_dir, apply_overrides, split_overrides, wrap
from neva_recipes.cli._dry_run import FORMATS, show
from neva_recipes.cli._executors import add_executor, chosen_executor, refuse_slips, split_executor_overrides
from neva_recipes.cli._fields import describe_fields, describe_parameters
from neva_recipes.cli._finish import finish
from neva_recipes.cli._opening import make_recipe
from neva_recipes.cli._overview import recipe_overview
from neva_recipes.config import Recipe, load_recipe
from neva_recipes.registry import RecipeEntry, find_pipeline, find_recipe
from neva_recipes.secrets import mask, secret_values

if TYPE_CHECKING:
    from executors import Executor

__all__ = ["launch_command"]


def launch_command(argv: Sequence[str], commands: Mapping[str, str]) -> int:
    """Run, describe or plan a recipe; without one, say what can be run.

    Args:
        argv: Arguments, the recipe's name among them.
        commands: Name and meaning of the other commands, for the help.
    """
    arguments = _parser("nemo-run").parse(argv)
    for flag, value in (("--format", arguments.format), ("--gpu", arguments.gpu)):
        if value is not None and not arguments.dry_run:
            raise UsageError(f"{flag} {value}: goes with --dry-run, which starts nothing: add --dry-run")
    if not arguments.words:
        print(_help(commands) if arguments.help else recipe_overview(arguments.recipes))
        return 0
    name, *words = arguments.words
    overrides, of_executor = split_executor_overrides(split_overrides(words))
    pipeline_entry = None if _is_saved(name) else find_pipeline(name, arguments.recipes)
    if arguments.parallel is not None and pipeline_entry is None and not arguments.sweep:
        raise UsageError("--parallel: goes with --sweep or a pipeline, whose runs it counts")
    if pipeline_entry is not None:
        return _launch_pipeline(pipeline_entry, overrides, of_executor, arguments)
    refuse_slips(overrides)
    entry = None if _is_saved(name) else find_recipe(name, arguments.recipes, commands)
    if arguments.sweep and not arguments.help:
        from neva_recipes.cli._pipeline import make_sweep, start

        sweep = make_sweep(Path(name).stem if _is_saved(name) else name, overrides, partial(_recipe_of, name, entry))
        return start(sweep, chosen_executor(arguments, of_executor), arguments)
    recipe = _recipe_of(name, entry, {} if arguments.sweep else overrides)
    if arguments.help:
        # What a recipe function has put into a field is not checked before it is run or looked at.
        print(mask(_recipe_help(name, entry, recipe), secret_values(os.environ)))
        return 0
    return _start(recipe, chosen_executor(arguments, of_executor), arguments)


def _is_saved(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _recipe_of(name: str, entry: RecipeEntry | None, overrides: Mapping[str, str]) -> fdl.Buildable[Recipe]:
    if entry is not None:
        return make_recipe(entry, overrides)
    recipe = load_recipe(name)
    apply_overrides(recipe, overrides)
    return recipe


def _launch_pipeline(
    entry: RecipeEntry, overrides: Mapping[str, str], of_executor: Mapping[str, str], arguments: argparse.Namespace
) -> int:
    from neva_recipes.cli._pipeline import make_pipeline, pipeline_fields, start

    for flag, value in (("--gpu", arguments.gpu), ("--sweep", arguments.sweep or None)):
        if value is not None:
            raise UsageError(f"{flag}: goes with a recipe, not with a pipeline")
    pipeline = make_pipeline(entry, overrides)
    if arguments.help:
        parameters = ["parameters of the pipeline:", *describe_parameters(entry.parameters)]
        help_text = _parser(
            f"nemo-run {entry.name}",
            usage=f"nemo-run {entry.name} [key=value ...] [STAGE.key=value ...] [flags]",
            description="\n\n".join(map(wrap, entry.description.split("\n\n"))),
            epilog="\n".join(parameters + pipeline_fields(pipeline)),
        ).format_help()
        print(mask(help_text, secret_values(os.environ)))
        return 0
    return start(pipeline, chosen_executor(arguments, of_executor), arguments)


def _start(recipe: fdl.Buildable[Recipe], executor: "Executor", arguments: argparse.Namespace) -> int:
    import executors

    place = {"name": arguments.name, "runs_dir": arguments.runs_dir}
    if arguments.dry_run:
        from neva_recipes.inspection import inspect_recipe

        return show(inspect_recipe(recipe, executor, gpu=arguments.gpu, **place), arguments.format or "text")
    return finish(executors.run(recipe, executor, **place, detach=arguments.detach), arguments.detach)


def _parser(prog: str, usage: str | None = None, description: str = "", epilog: str = "") -> StrictParser:
    parser = StrictParser(prog, usage=usage, description=description, epilog=epilog, add_help=False)
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("-h", "--help", action="store_true", help="with a recipe: every field, its default and meaning")
    parser.add_argument("--dry-run", action="store_true", help="show the recipe, its plan and script; start nothing")
    parser.add_argument(
        "--format",
        metavar="F",
        choices=FORMATS,
        help=f"with --dry-run: {', '.join(FORMATS[:-1])} or {FORMATS[-1]} (text)",
    )
    parser.add_argument("--gpu", metavar="G", help="with --dry-run: type of GPU for memory and time, such as h100-80g")
    parser.add_argument("--detach", action="store_true", help="return at once; the run goes on")
    parser.add_argument("--name", metavar="N", help="name of the run (the recipe's)")
    parser.add_argument("--sweep", action="store_true", help="run every combination of values: optim.lr=1e-5,2e-5")
    parser.add_argument(
        "--parallel",
        metavar="N",
        type=_count,
        help="runs of a sweep, or stages of a pipeline, at once (1; on Slurm any)",
    )
    add_executor(parser)
    parser.add_argument("--recipes", metavar="F", type=Path, help="Python file with recipes and profiles of your own")
    add_runs_dir(parser)
    return parser


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of at least 1")
    return int(text)


def _help(commands: Mapping[str, str]) -> str:
    return _parser(
        "nemo-run",
        usage="nemo-run RECIPE [key=value ...] [flags]\n       nemo-run COMMAND [...]",
        description=(
            "RECIPE is a name that nemo-run list shows, or a saved recipe (.yaml).\n"
            "key=value sets a parameter of the recipe (size=13b), a field (optim.lr=1e-4), or\n"
            "a field of the executor (executor.env.NCCL_DEBUG=INFO)."
        ),
        epilog="\n".join(
            [
                "commands, each with a --help of its own:",
                *(f"  {name:<22}  {meaning}" for name, meaning in commands.items()),
            ]
        ),
    ).format_help()


def _recipe_help(name: str, entry: RecipeEntry | None, recipe: fdl.Buildable[Recipe]) -> str:
    fields = ["fields of the recipe, with what they hold by default:", *describe_fields(recipe)]
    parameters = ["parameters of the recipe:", *describe_parameters(entry.parameters), ""] if entry else []
    return _parser(
        f"nemo-run {name}",
        usage=f"nemo-run {name} [key=value ...] [flags]",
        description="\n\n".join(map(wrap, entry.description.split("\n\n"))) if entry else "A saved recipe.",
        epilog="\n".join(parameters + fields),
    ).format_help()
