"""What a shell offers when a word of the command is completed; argcomplete talks to the shell.

The shell starts the command for it, with the line in its environment. The parser of the command that was typed says
what each word is: by its metavar a run, a recipe, an executor, or the field of a recipe.
"""

import argparse
import contextlib
import os
import re
import shlex
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import argcomplete
from argcomplete.lexers import split_line

from neva_recipes.cli.arguments import PARSER_WANTED, ParserShown, StrictParser
from neva_recipes.cli.dispatch import COMMANDS, WORDS, run_command_function
from neva_recipes.cli.fields import fields_by_path
from neva_recipes.config import UserError, members_of

__all__ = ["complete", "parser_of"]

_FIRST_WORD = "_ARGCOMPLETE"
"""Environment variable that tells argcomplete at which word the line begins, counted from 1."""

_LINE, _POINT = "COMP_LINE", "COMP_POINT"


def complete() -> None:
    """Write what may follow to the shell, and end the process."""
    line, point = os.environ[_LINE], int(os.environ[_POINT])
    *_, words, _ = split_line(line, point)
    name = words[1] if len(words) > 1 and words[1] in COMMANDS else None
    parser, start = parser_of(name), 1 if name is None else 2
    if words[2:] and words[2] in _actions(parser):
        parser, start = parser_of(name, words[2]), 3
    os.environ[_FIRST_WORD] = str(start)
    for action in parser.arguments():
        if (offer := _offer(action, () if name is not None else WORDS)) is not None:
            action.completer = offer  # type: ignore[attr-defined]
    os.environ[_LINE] = line = _flags_first(line, point, parser, start)
    os.environ[_POINT] = str(len(line))
    argcomplete.autocomplete(parser, always_complete_options=False)


def _flags_first(line: str, point: int, parser: StrictParser, start: int) -> str:
    """Return a line up to the cursor with its flags in front, those behind the cursor too.

    The command takes flags and other words in any order. argcomplete does not offer what belongs to a list of words
    behind a flag, and does not see what is behind the cursor, such as the file of the recipe.

    Args:
        line: The whole line.
        point: The position of the cursor.
        parser: The parser of the command.
        start: Number of words before its arguments.
    """
    _, prefix, _, words, _ = split_line(line, point)
    flags, others, is_open = _parted(words[start:], parser)
    if is_open:  # the word at the cursor is the value of a flag
        return line[:point]
    *_, all_words, _ = split_line(f"{line} ", len(line) + 1)
    behind, *_ = _parted(all_words[len(words) + bool(prefix) :], parser)
    return f"{shlex.join([*words[:start], *flags, *behind, *others])} {_word_at_end(line[:point])}"


def _parted(words: Sequence[str], parser: StrictParser) -> tuple[list[str], list[str], bool]:
    """Return the flags with their values, the other words, and whether the last flag still waits for its value."""
    takes_value = {flag: action.nargs != 0 for action in parser.arguments() for flag in action.option_strings}
    flags: list[str] = []
    others: list[str] = []
    is_open = False
    for word in words:
        is_flag = word.startswith("-") and word != "--"
        (flags if is_flag or is_open else others).append(word)
        is_open = is_flag and takes_value.get(word, False)
    return flags, others, is_open


def _word_at_end(text: str) -> str:
    """Return the last word of a text as it is typed, with quotes; empty after a space."""
    whole = split_line(text, len(text))
    for begin in range(len(text), 0, -1):
        if text[begin - 1].isspace() and split_line(text[:begin], begin)[1:4] == ("", "", whole[3]):
            return text[begin:]
    return text


def _actions(parser: StrictParser) -> Iterable[str]:
    """Return the actions of a command, each of which has a parser of its own."""
    return next((action.choices or () for action in parser.arguments() if action.metavar == "ACTION"), ())


def parser_of(name: str | None, *action: str) -> StrictParser:
    """Return the parser of a command, or of an action of it; `None` means the command that launches recipes."""
    try:
        run_command_function(name, [*action, PARSER_WANTED])
    except ParserShown as shown:
        return shown.parser
    raise AssertionError(f"{name}: parsed no arguments")


_Offer = Callable[..., Iterable[str]]


def _offer(action: argparse.Action, commands: Sequence[str]) -> _Offer | None:
    """Return what completes an argument; `None` leaves it to argcomplete, which offers choices and files.

    Args:
        action: The argument.
        commands: Words that may stand in the place of a recipe.
    """
    if action.option_strings:
        of_flags: dict[str, _Offer] = {"--executor": _executors, "--gpu": _gpus}
        return of_flags.get(action.option_strings[0])
    metavar = str(action.metavar or "")
    takes_run = re.search(r"\b(RUN|PIPELINE|A)\b", metavar) is not None
    takes_recipe = re.search(r"\b(RECIPE|A)\b", metavar) is not None
    takes_fields = "key=value" in metavar
    names = len(re.findall(r"\b(RUN|PIPELINE|RECIPE|A|B)\b", metavar))

    def offer(prefix: str, parsed_args: argparse.Namespace, **_: object) -> list[str]:
        given = getattr(parsed_args, action.dest, None) or []
        given = given if isinstance(given, list) else []
        found: list[str] = []
        with contextlib.suppress(UserError):  # of a broken file of recipes or profiles; the command itself tells of it
            if takes_fields and (given or "=" in prefix or not names):
                found += _fields(prefix, given[0] if takes_recipe and given else None, parsed_args)
            if len(given) < names and "=" not in prefix:
                found += _recipes(parsed_args) if takes_recipe else []
                found += _runs(parsed_args) if takes_run else []
                found += commands
        return found

    return offer if takes_run or takes_recipe or takes_fields else None


def _recipes(arguments: argparse.Namespace) -> list[str]:
    from neva_recipes.registry import list_pipelines, list_recipes, short_names

    files = _files(arguments)
    return [*(entry.name for entry in (*list_recipes(files), *list_pipelines(files))), *short_names(files)]


def _files(arguments: argparse.Namespace) -> Sequence[Path]:
    """Return the files of --recipes."""
    return getattr(arguments, "recipes", None) or ()


def _runs(arguments: argparse.Namespace) -> list[str]:
    from executors import list_runs
    from neva_recipes.run_directory.standing import given_name

    runs = list_runs(getattr(arguments, "runs_dir", None) or "runs")
    names = [given_name(run.path) or run.name for run in runs]
    return [*dict.fromkeys(names), "latest"] if names else []


def _executors(parsed_args: argparse.Namespace, **_: object) -> list[str]:
    from executors.registry import executor_kinds, list_profiles

    with contextlib.suppress(UserError):
        return [kind.name for kind in executor_kinds()] + [
            profile.name for profile in list_profiles(_files(parsed_args))
        ]
    return []


def _gpus(**_: object) -> list[str]:
    from neva_recipes.plan.cost.gpus import GPUS

    return list(GPUS)


def _fields(prefix: str, recipe: str | None, arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the fields that can be set, or the values of one that is already typed.

    Args:
        prefix: What is typed of it.
        recipe: The recipe or run before it, if it may have parameters of its own.
        arguments: The command line so far.
    """
    fields = _parameters(recipe, _files(arguments)) | fields_by_path()
    path, equals, _ = prefix.partition("=")
    if not equals:
        yield from (f"{name}=" for name in fields)
    elif path in fields:
        runs = _runs(arguments) if path.endswith(".from_pretrained") else []
        yield from (f"{path}={value}" for value in (*_values(fields[path]), *runs))


def _parameters(recipe: str | None, files: Sequence[Path]) -> dict[str, object]:
    from neva_recipes.registry import find_pipeline, find_recipe

    with contextlib.suppress(UserError):  # a run, or a name that is not finished
        if recipe is not None:
            found = (find_pipeline(recipe, files) or find_recipe(recipe, files)).parameters
            return {one.name: one.annotation for one in found if not one.obstacle}
    return {}


def _values(annotation: object) -> Iterator[str]:
    for member in members_of(annotation):
        if member is bool:
            yield from ("true", "false")
        elif member is type(None):
            yield "none"
        elif typing.get_origin(member) is typing.Literal:
            yield from map(str, typing.get_args(member))
