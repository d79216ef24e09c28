"""Runs a recipe: `nemo-run RECIPE [key=value ...]`."""

import argparse
import dataclasses
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from neva_recipes.cli.arguments import (
    StrictParser,
    UsageError,
    add_config,
    add_quiet,
    add_recipes,
    add_runs_dir,
    split_overrides,
    whole_number,
    wrap,
)
from neva_recipes.cli.commands.executors import (
    add_executor,
    add_gpu,
    chosen_executor,
    refuse_slips,
    split_executor_overrides,
)
from neva_recipes.cli.commands.overview import recipe_overview
from neva_recipes.cli.dry_run import FORMATS, show, show_script
from neva_recipes.cli.fields import describe_fields, describe_parameters
from neva_recipes.cli.foreign import foreign_configuration
from neva_recipes.cli.opening import make_recipe, named_parameters, saved_recipe
from neva_recipes.cli.report.finish import finish, reference
from neva_recipes.cli.several import means_sweep
from neva_recipes.cli.words import COMMAND_WORDS
from neva_recipes.config import Draft, Positive, Recipe, RecipeError, RunError, replace_value
from neva_recipes.registry import NoSuchRecipe, RecipeEntry, find_pipeline, find_recipe, is_built_in
from neva_recipes.run_directory.layout import RECIPE_FILE
from neva_recipes.secrets import mask, secret_values

if TYPE_CHECKING:
    from executors import Executor
    from neva_recipes.inspection import Source

__all__ = ["launch_command"]

_PACKAGE = Path(__file__).parents[2]


def _parse(argv: Sequence[str], commands: Mapping[str, str]) -> argparse.Namespace:
    parameters = partial(_parameters, first=next(iter(argv), ""), commands=commands)
    arguments = _parser("nemo-run", parameters=parameters).parse(argv)
    if arguments.format is not None and not arguments.dry_run:
        raise UsageError(f"--format {arguments.format}: goes with --dry-run, which starts nothing: add --dry-run")
    if arguments.script and not arguments.dry_run:
        raise UsageError("--script: goes with --dry-run, which starts nothing: add --dry-run")
    if arguments.script and arguments.format is not None:
        raise UsageError(f"--script, --format {arguments.format}: choose one: the script is shell text")
    return arguments


def _parameters(arguments: argparse.Namespace, *, first: str, commands: Mapping[str, str]) -> list[str]:
    """Return what `named_parameters` returns.

    Raises:
        UserError: The first word typed stands for a recipe and names none, which is told of before any flag.
    """
    is_name = first in arguments.words and not _is_saved(first)
    if is_name and find_pipeline(first, arguments.recipes) is None:
        _entry(first, arguments, commands)
    return named_parameters(arguments)


def launch_command(argv: Sequence[str], commands: Mapping[str, str]) -> int:
    """Run, describe or plan a recipe; without one, show what can be run.

    Args:
        argv: Arguments, including the name of the recipe.
        commands: Name and meaning of the other commands, for the help.
    """
    arguments = _parse(argv, commands)
    if arguments.version:
        print(f"nemo-run {_version()}")
        return 0
    if not arguments.words:
        print(_help(commands) if arguments.help else recipe_overview(arguments.recipes))
        return 0
    return _launch(arguments, argv, commands)


def _launch(arguments: argparse.Namespace, argv: Sequence[str], commands: Mapping[str, str]) -> int:
    name, *words = arguments.words
    pipeline_entry = None if _is_saved(name) else find_pipeline(name, arguments.recipes)
    entry = None if pipeline_entry is not None or _is_saved(name) else _entry(name, arguments, commands)
    overrides, of_executor = split_executor_overrides(split_overrides(words))
    typed = mask(shlex.join(["nemo-run", *argv]), secret_values(os.environ))
    if arguments.parallel is not None and pipeline_entry is None and not arguments.sweep:
        raise UsageError("--parallel: goes with --sweep or a pipeline, whose runs it counts")
    known = pipeline_entry or entry
    if arguments.help and known is not None and (lacking := known.lacking(overrides)):
        print(mask(_help_without(name, known, lacking), secret_values(os.environ)))
        return 0
    if pipeline_entry is not None:
        return _launch_pipeline(pipeline_entry, overrides, of_executor, arguments, typed)
    refuse_slips(overrides)
    make = partial(_recipe_of, name, entry, arguments.config)
    if arguments.sweep and not arguments.help:
        from neva_recipes.cli.commands.pipeline import make_sweep, start

        sweep = make_sweep(Path(name).stem if _is_saved(name) else name, overrides, make)
        return start(sweep, chosen_executor(arguments, of_executor), arguments, typed=typed)
    try:
        recipe = make({} if arguments.sweep else overrides)
    except RecipeError as error:
        hint = "; --sweep starts a run for each of these values" if means_sweep(str(error), overrides, make) else ""
        raise RecipeError(f"{error}{hint}") from None
    if arguments.help:
        # Fields set by a recipe function are only checked when it is run or inspected.
        print(mask(_recipe_help(name, entry, recipe), secret_values(os.environ)))
        return 0
    executor = chosen_executor(arguments, of_executor)

    from executors.findings import ImpossibleError, require_possible

    try:
        return _start(recipe, executor, arguments, typed, arguments.name or _own_name(name, entry, recipe))
    except ImpossibleError as error:
        from neva_recipes.cli.commands.fit import fit_words, with_fit_command

        require_possible(with_fit_command(error.plan, fit_words(arguments)))
        raise


def _entry(name: str, arguments: argparse.Namespace, commands: Mapping[str, str]) -> RecipeEntry:
    """Return the recipe with this name.

    Raises:
        RecipeError: As `find_recipe`.
        UsageError: It is the name or the path of a run.
    """
    try:
        return find_recipe(name, arguments.recipes, _other_words(commands))
    except NoSuchRecipe as unknown:
        if name.endswith((".py", ".json")) and (refusal := foreign_configuration(Path(name))) is not None:
            raise RecipeError(refusal) from None

        from executors import find_run
        from executors.pipelines.spec import is_pipeline

        try:
            run = find_run(name, arguments.runs_dir)
        except RunError:
            raise unknown from None
    named, again = reference(run), ""
    if (run.path / RECIPE_FILE).is_file() or is_pipeline(run.path):
        again = f"nemo-run rerun {named} starts it anew, "
    raise UsageError(f"{name}: is a run and no recipe: {again}nemo-run resume {named} goes on with it")


def _other_words(commands: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the words that can be typed in place of a recipe, with their meanings: commands, and words for them."""
    offered = {
        word: tuple(name for name in names if name in commands or "." in name) for word, names in COMMAND_WORDS.items()
    }
    return {**{word: names for word, names in offered.items() if names}, **{name: (name,) for name in commands}}


def _is_saved(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _recipe_of(
    name: str, entry: RecipeEntry | None, configs: Sequence[Path], overrides: Mapping[str, str]
) -> Draft[Recipe]:
    if entry is None:
        return saved_recipe(Path(name), overrides, configs)
    recipe = make_recipe(entry, overrides, configs)
    source = None if is_built_in(entry.name) else _source_of_built_in_name(recipe)
    # The function has left the name as the built-in recipe that it calls has set it.
    if source is not None and source.file is not None and Path(source.file).is_relative_to(_PACKAGE):
        replace_value(recipe, "name", name, f"nemo-run {name}")
    return recipe


def _own_name(word: str, entry: RecipeEntry | None, recipe: Draft[Recipe]) -> str | None:
    """Return the word that the user typed, if a recipe that is not built in has the name of one that is."""
    if entry is None or is_built_in(entry.name) or _source_of_built_in_name(recipe) is None:
        return None
    return word


def _source_of_built_in_name(recipe: Draft[Recipe]) -> "Source | None":
    """Return where Python code has given a recipe the name of a built-in one; `None` if it has another name."""
    if not is_built_in(getattr(recipe, "name", None)):
        return None
    from neva_recipes.inspection import source_of

    source = source_of(recipe, "name")
    return source if source.kind == "python" else None


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("neva-recipes")
    except PackageNotFoundError:  # the code was copied, not installed
        return "of unknown version"


def _launch_pipeline(
    entry: RecipeEntry,
    overrides: Mapping[str, str],
    of_executor: Mapping[str, str],
    arguments: argparse.Namespace,
    typed: str,
) -> int:
    from neva_recipes.cli.commands.pipeline import make_pipeline, pipeline_fields, start

    given = (("--sweep", arguments.sweep or None), ("--config", arguments.config or None))
    for flag, value in given:
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
            is_for_pipeline=True,
        ).format_help()
        print(mask(help_text, secret_values(os.environ)))
        return 0
    return start(pipeline, chosen_executor(arguments, of_executor), arguments, typed=typed)


def _start(
    recipe: Draft[Recipe],
    executor: "Executor",
    arguments: argparse.Namespace,
    typed: str,
    name: str | None,
) -> int:
    import executors

    place = {"name": name, "runs_dir": arguments.runs_dir}
    if arguments.dry_run:
        from neva_recipes.cli.commands.fit import fit_words, with_fit_command
        from neva_recipes.inspection import inspect_recipe

        inspection = inspect_recipe(recipe, executor, **place)
        if arguments.script:
            return show_script(inspection)
        inspection = dataclasses.replace(inspection, plan=with_fit_command(inspection.plan, fit_words(arguments)))
        form = arguments.format or "text"
        remark = "; --script prints the script that does" if form == "text" and inspection.job is not None else ""
        return show(inspection, form, typed=typed, remark=remark)
    run = executors.run(recipe, executor, **place, detach=arguments.detach, quiet=arguments.quiet)
    return finish(run, arguments.detach)


def _parser(
    prog: str,
    usage: str | None = None,
    description: str = "",
    epilog: str = "",
    *,
    is_for_pipeline: bool = False,
    parameters: Callable[[argparse.Namespace], list[str]] = named_parameters,
) -> StrictParser:
    """Return the parser of a launch; for the help of a pipeline, without flags that only apply to recipes."""
    parser = StrictParser(
        prog,
        takes_fields=True,
        parameters=parameters,
        usage=usage,
        description=description,
        epilog=epilog,
        add_help=False,
    )
    parser.add_argument("words", metavar="RECIPE [key=value ...]", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("-h", "--help", action="store_true", help="with a recipe: every field, its default and meaning")
    parser.add_argument("--dry-run", action="store_true", help="show the recipe and its plan; start nothing")
    forms = "text or html" if is_for_pipeline else f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
    parser.add_argument("--format", metavar="F", choices=FORMATS, help=f"with --dry-run: {forms} (text)")
    shown = "what is started for each stage" if is_for_pipeline else "shell text that starts it"
    parser.add_argument("--script", action="store_true", help=f"with --dry-run: print {shown}, alone")
    add_gpu(parser)
    parser.add_argument("--detach", action="store_true", help="return at once; the run goes on")
    add_quiet(parser)
    parser.add_argument("--name", metavar="N", help="name of the run (the recipe's)")
    if not is_for_pipeline:
        parser.add_argument("--sweep", action="store_true", help="run every combination of values: optim.lr=1e-5,2e-5")
    parser.add_argument(
        "--parallel",
        metavar="N",
        type=partial(whole_number, kind=Positive),
        help="runs of a sweep, or stages of a pipeline, at once (1; on Slurm any)",
    )
    add_executor(parser)
    add_recipes(parser)
    if not is_for_pipeline:
        add_config(parser)
    add_runs_dir(parser)
    parser.add_argument("--version", action="store_true", help="print the version of this program, and end")
    return parser


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


def _help_without(name: str, entry: RecipeEntry, lacking: Sequence[str]) -> str:
    """Return the help of a recipe or pipeline that cannot be made yet: its parameters, without its fields."""
    given = " ".join(f"{parameter}=VALUE" for parameter in lacking)
    parameters = ["parameters, of which those with =VALUE must be given:", *describe_parameters(entry.parameters)]
    fields = wrap(f"fields: nemo-run {name} {given} --help shows what they hold with these values")
    return _parser(
        f"nemo-run {name}",
        usage=f"nemo-run {name} {given} [key=value ...] [flags]",
        description="\n\n".join(map(wrap, entry.description.split("\n\n"))),
        epilog="\n".join([*parameters, "", fields]),
    ).format_help()


def _recipe_help(name: str, entry: RecipeEntry | None, recipe: Draft[Recipe]) -> str:
    fields = ["fields of the recipe, with what they hold by default:", *describe_fields(recipe)]
    parameters = ["parameters of the recipe:", *describe_parameters(entry.parameters), ""] if entry else []
    return _parser(
        f"nemo-run {name}",
        usage=f"nemo-run {name} [key=value ...] [flags]",
        description="\n\n".join(map(wrap, entry.description.split("\n\n"))) if entry else "A saved recipe.",
        epilog="\n".join(parameters + fields),
    ).format_help()
