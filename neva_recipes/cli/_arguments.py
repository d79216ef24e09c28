"""Command lines taken literally: no abbreviated flags, nothing unknown passed over."""

import argparse
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import fiddle as fdl

from neva_recipes.config import COMMAND_LINE, Recipe, UserError, set_field, suggest, value_from

__all__ = ["HelpShown", "StrictParser", "UsageError", "add_runs_dir", "apply_overrides", "split_overrides", "wrap"]

_WIDTH = 80


class UsageError(UserError):
    """A command line that cannot be understood."""


class HelpShown(Exception):
    """Raised after `--help` has been printed, when nothing is left to do."""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_WIDTH, max_help_position=26)


class StrictParser(argparse.ArgumentParser):
    """An argument parser whose complaints are a `UsageError` each, with the nearest flags.

    Flags and positional arguments may be mixed in any order.
    """

    def __init__(self, prog: str, **options: Any) -> None:
        self.flags: list[str] = []
        super().__init__(prog, formatter_class=_Formatter, allow_abbrev=False, **options)

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        """Add an argument, as in argparse."""
        self.flags.extend(name for name in names if name.startswith("-"))
        return super().add_argument(*names, **options)

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Return the arguments.

        Raises:
            UsageError: A flag or argument is unknown, missing, or has a wrong value.
            HelpShown: There was a --help, and it has been printed.
        """
        arguments, unknown = self.parse_known_intermixed_args(argv)
        if unknown:
            # A flag comes before the words it leaves over, which are probably its value.
            self._refuse(next((word for word in unknown if word.startswith("-")), unknown[0]))
        return arguments

    def _refuse(self, word: str) -> NoReturn:
        if not word.startswith("-"):
            self.error(f"unexpected argument {word!r}")
        flag, _, value = word.partition("=")
        if "." in flag:
            raise UsageError(f"{word}: an override has no dashes: {flag.lstrip('-')}={value or 'VALUE'}")
        hint = suggest(flag, self.flags) or f" (flags: {', '.join(self.flags)})"
        raise UsageError(f"{flag}: no such flag of {self.prog}{hint}")

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError`; argparse calls this where it would print its usage."""
        raise UsageError(f"{message}; {self.prog} --help shows how it is used")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Raise `HelpShown`; argparse calls this after it has printed the help."""
        raise HelpShown


def wrap(text: str, indent: str = "") -> str:
    """Return text folded to the width of the help; what can be pasted is never broken."""
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def add_runs_dir(parser: StrictParser) -> None:
    """Add --runs-dir, which every command about runs has."""
    parser.add_argument("--runs-dir", metavar="D", type=_folder, default=Path("runs"), help="folder of the runs (runs)")


def _folder(text: str) -> Path:
    if not text:  # a variable that is not set, and no word for the current folder
        raise argparse.ArgumentTypeError("'': expected a folder")
    return Path(text)


def split_overrides(words: Sequence[str]) -> dict[str, str]:
    """Return `key=value` words as a mapping; of a key that is there twice the last counts.

    Raises:
        UsageError: A word is not of that form.
    """
    overrides: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(f"{word}: expected key=value, such as optim.lr=1e-4")
        overrides.pop(key, None)
        overrides[key] = value
    return overrides


def apply_overrides(recipe: fdl.Buildable[Recipe], overrides: Mapping[str, str]) -> None:
    """Set fields of a recipe, in place.

    Raises:
        RecipeError: There is no such field, or it does not accept the value.
    """
    with value_from(COMMAND_LINE):
        for path, text in overrides.items():
            set_field(recipe, path, text)
