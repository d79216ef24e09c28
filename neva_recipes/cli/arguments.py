"""Strict command lines: no abbreviated flags, nothing unknown ignored."""

import argparse
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import fiddle as fdl

from neva_recipes.cli._branches import branches_of, fill_branch
from neva_recipes.cli.words import hint_of, meant_field
from neva_recipes.config import (
    COMMAND_LINE,
    ConfigNode,
    Draft,
    NoSuchFieldError,
    Recipe,
    RecipeError,
    UserError,
    field_types,
    format_value,
    local_path,
    near_words,
    parse_value,
    set_field,
    value_from,
)
from neva_recipes.terminal import fold

__all__ = [
    "DEFAULT_EXECUTOR",
    "PARSER_WANTED",
    "HelpShown",
    "ParserShown",
    "StrictParser",
    "UsageError",
    "add_config",
    "add_quiet",
    "add_recipes",
    "add_runs_dir",
    "apply_overrides",
    "flag_words",
    "number",
    "path_argument",
    "split_overrides",
    "whole_number",
    "wrap",
]

DEFAULT_EXECUTOR = "local"

_DEFAULT_RUNS_DIR = Path("runs")
_WIDTH = 80


class UsageError(UserError):
    """A command line that cannot be understood."""


class HelpShown(Exception):
    """Raised after `--help` has been printed, when nothing is left to do."""


PARSER_WANTED = "\0parser"
"""Argument that has a command raise `ParserShown`; no user can type it."""


class ParserShown(Exception):
    """Raised in place of parsing, with the parser of the command.

    Attributes:
        parser: The parser.
    """

    def __init__(self, parser: "StrictParser") -> None:
        super().__init__(parser.prog)
        self.parser = parser


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_WIDTH, max_help_position=26)


class StrictParser(argparse.ArgumentParser):
    """An argument parser that raises `UsageError` with the nearest flags.

    Flags and positional arguments may be mixed in any order.
    """

    def __init__(
        self,
        prog: str,
        *,
        takes_fields: bool = False,
        parameters: Callable[[argparse.Namespace], Iterable[str]] | None = None,
        **options: Any,
    ) -> None:
        """Make a parser.

        Args:
            prog: The words of the command.
            takes_fields: Whether it takes `key=value`, so that an unknown flag may be meant for a field.
            parameters: Returns further names that `key=value` may set, from the part of the command line that was read.
            **options: As in argparse.
        """
        self.flags: list[str] = []
        self._takes_fields = takes_fields
        self._parameters = parameters
        super().__init__(prog, formatter_class=_Formatter, allow_abbrev=False, **options)

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        """Add an argument, as in argparse."""
        if options.get("help") is not argparse.SUPPRESS:
            self.flags.extend(name for name in names if name.startswith("-"))
        return super().add_argument(*names, **options)

    def arguments(self) -> Iterator[argparse.Action]:
        """Yield every argument of the command."""
        yield from self._actions

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Return the arguments.

        Raises:
            UsageError: A flag or argument is unknown, missing, or has a wrong value.
            HelpShown: There was a --help, and it has been printed.
            ParserShown: The arguments are `PARSER_WANTED`.
        """
        if list(argv) == [PARSER_WANTED]:
            raise ParserShown(self)
        for word in argv:
            if word.startswith("-") and word.endswith("=--"):  # argparse would remove the dashes
                raise UsageError(f"{word}: a value is not made of dashes alone")
        arguments, unknown = self.parse_known_intermixed_args(argv)
        if unknown:
            # A flag precedes the words left over after it, which are probably its value.
            word = next((word for word in unknown if word.startswith("-")), unknown[0])
            self._refuse(word, argv[list(argv).index(word) + 1 :] if word in argv else (), arguments)
        return arguments

    def _refuse(self, word: str, behind: Sequence[str], arguments: argparse.Namespace) -> NoReturn:
        if not word.startswith("-"):
            self.error(f"unexpected argument {word!r}")
        flag, _, value = word.partition("=")
        if not value:
            value = next((given for given in behind[:1] if not given.startswith("-") and "=" not in given), "VALUE")
        name = flag.lstrip("-")
        if "." in flag:
            raise UsageError(f"{word}: an override has no dashes: {name}={value}")
        hint = hint_of(flag, value) if self._takes_fields and meant_field(name, exactly=True) is None else None
        if hint is not None:
            raise UsageError(f"{flag}: no such flag of {self.prog}{hint}")
        parameters = [] if self._parameters is None else list(self._parameters(arguments))
        is_of_recipe = not self._takes_fields or name.replace("-", "_") in parameters
        if not is_of_recipe and (hint := _of_executors(name, value, arguments)):
            raise UsageError(f"{flag}: no such flag of {self.prog} (did you mean {hint}?)")
        meant = self._meant(name, parameters)
        typed = ", ".join(one if one.startswith("-") else f"{one}={value}" for one in meant)
        hint = f"did you mean {typed}?" if meant else f"flags: {', '.join(self.flags)}"
        raise UsageError(f"{flag}: no such flag of {self.prog} ({hint})")

    def _meant(self, name: str, parameters: Sequence[str]) -> list[str]:
        """Return the parameters, fields or flags that a name without dashes may mean, nearest first."""
        if (parameter := name.replace("-", "_")) in parameters:
            return [parameter]
        if self._takes_fields and (field := meant_field(name, exactly=True)) is not None:
            return [field]
        known = {flag.lstrip("-"): flag for flag in self.flags} | {one: one for one in parameters}
        if near := near_words(name, known):
            return [known[one] for one in near]
        field = meant_field(name) if self._takes_fields else None
        return [] if field is None else [field]

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError`; argparse calls this instead of printing its usage."""
        raise UsageError(f"{message}; {self.prog} --help shows how it is used")

    def print_help(self, file: Any = None) -> None:
        """Print the help; argparse would ignore that its output is lost."""
        print(self.format_help(), end="", file=file)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Raise `HelpShown`; argparse calls this after it has printed the help."""
        raise HelpShown


def _of_executors(name: str, value: str, arguments: argparse.Namespace) -> str:
    """Return the field of an executor that a flag such as `--partition` means, as it is typed; empty if none."""
    from executors.kinds import kinds_with

    field = name.replace("-", "_").lower()
    kinds = [] if meant_field(name, exactly=True) else kinds_with(field)
    if not kinds:
        return ""
    is_there = getattr(arguments, "executor", None) != DEFAULT_EXECUTOR or DEFAULT_EXECUTOR in kinds
    return f"executor.{field}={shlex.quote(value)}" + ("" if is_there else f" --executor {kinds[0]}")


def wrap(text: str, indent: str = "") -> str:
    """Return text folded to the width of the help; text that may be pasted is never broken."""
    return "\n".join(fold(text, _WIDTH, indent))


def add_runs_dir(parser: StrictParser) -> None:
    """Add --runs-dir, which every command about runs has."""
    parser.add_argument(
        "--runs-dir",
        metavar="D",
        type=_folder,
        default=_DEFAULT_RUNS_DIR,
        help=f"folder of the runs ({_DEFAULT_RUNS_DIR})",
    )


def add_quiet(parser: StrictParser) -> None:
    """Add --quiet, which every command that starts a recipe has."""
    parser.add_argument("--quiet", action="store_true", help="print no warnings of the plan before it starts")


def whole_number(text: str, kind: object = int) -> int:
    """Return the integer given for a flag, written like that of a field.

    Args:
        text: The text typed.
        kind: The integers allowed, as in the annotation of a field: `int`, `NonNegative` or `Positive`.
    """
    return int(_number(kind, text))


def number(text: str) -> float:
    """Return the number given for a flag, written like that of a field."""
    return float(_number(float, text))


def _number(kind: object, text: str) -> float:
    try:
        value: float = parse_value(kind, text, "value")
    except RecipeError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("value=")) from None
    return value


def add_recipes(parser: StrictParser, what: str = "recipes and profiles") -> None:
    """Add --recipes, which can be given several times."""
    parser.add_argument(
        "--recipes",
        metavar="F",
        type=path_argument,
        action="append",
        default=[],
        help=f"Python file with {what} of your own; several: --recipes A --recipes B",
    )


def add_config(parser: StrictParser) -> None:
    """Add --config, which can be given several times."""
    parser.add_argument(
        "--config",
        metavar="F",
        type=path_argument,
        action="append",
        default=[],
        help="YAML file with some fields, laid over the recipe; several: in their order",
    )


def flag_words(
    *,
    recipes: Iterable[Path] = (),
    configs: Iterable[Path] = (),
    executor: str | None = None,
    runs_dir: Path = _DEFAULT_RUNS_DIR,
) -> list[str]:
    """Return the flags that a suggested command inherits from the command that was typed.

    Args:
        recipes: Values of --recipes.
        configs: Values of --config.
        executor: Value of --executor; `None` and the default executor are left out.
        runs_dir: Value of --runs-dir; the default folder is left out.
    """
    flags = [("--recipes", str(path)) for path in recipes] + [("--config", str(path)) for path in configs]
    flags += [("--executor", executor)] if executor not in (None, DEFAULT_EXECUTOR) else []
    flags += [("--runs-dir", str(runs_dir))] if runs_dir != _DEFAULT_RUNS_DIR else []
    return [word for flag in flags for word in flag]


def path_argument(text: str) -> Path:
    """Return the path that a word means; `~` is the home folder if the shell has not expanded it."""
    if not text:  # probably an unset variable; it does not mean the current folder
        raise argparse.ArgumentTypeError("'': expected a path")
    try:
        return local_path(text, "path")
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("path=")) from None


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("'': expected a folder")
    return path_argument(text)


def split_overrides(words: Sequence[str]) -> dict[str, str]:
    """Return `key=value` words as a mapping; if a key appears twice, the last value counts.

    `key+=item` adds an item to a list, exactly as it is typed; all items of a key are together under `key+`.

    Raises:
        UsageError: A word does not have this form.
    """
    overrides: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key or key == "+":
            raise UsageError(f"{word}: expected key=value, such as optim.lr=1e-4")
        if key.endswith("+"):
            items = [overrides[key]] if key in overrides else []
            overrides[key] = ",".join([*items, format_value([value])])
            continue
        for old in (key, f"{key}+"):
            overrides.pop(old, None)
        overrides[key] = value
    return overrides


def apply_overrides(recipe: Draft[ConfigNode], overrides: Mapping[str, str]) -> None:
    """Set fields of a recipe, or of a tool of a pipeline, in place; first the branches that come from elsewhere.

    Raises:
        RecipeError: There is no such field, it does not accept the value, or a branch cannot be filled from it.
    """
    kind: Any = fdl.get_callable(recipe)
    branches = branches_of(recipe, overrides)
    with value_from(COMMAND_LINE):
        for path, text in branches.items():
            fill_branch(recipe, path, text, overrides)
        for path, text in overrides.items():
            if path in branches:
                continue
            is_known = "." in path or path in field_types(kind) or not issubclass(kind, Recipe)
            if not is_known and hint_of(path) is None and (field := meant_field(path)) is not None:
                raise RecipeError(f"{path}: no such field (did you mean {field}?)")
            try:
                set_field(recipe, path, text)
            except NoSuchFieldError as error:
                hint = hint_of(path, text) if issubclass(kind, Recipe) else None
                raise error if hint is None else RecipeError(f"{path}: no such field{hint}") from None
