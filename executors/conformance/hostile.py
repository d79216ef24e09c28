"""Texts that must never be interpreted, wherever they occur."""

from collections.abc import Collection
from pathlib import Path

from neva_recipes.run_directory.names import LONGEST_NAME, name_problem

__all__ = ["HOSTILE", "executed_below", "folder_names", "run_names"]

HOSTILE = (
    "two  words",
    " spaces around ",
    "it's",
    'say "this"',
    "'\"'\"'",
    "$(touch canary)",
    "`touch canary`",
    "; touch canary;",
    "& touch canary &",
    "&& touch canary || true",
    "| touch canary",
    "> canary",
    "$'touch\\x20canary'",
    "${HOME} $HOME $$ $? !!",
    "$",
    "~root",
    "*.py ?[a-z] {a,b}",
    "#comment",
    "back\\slash \\n end\\",
    "%s %n %d %%",
    "%j %A %t",
    "{{.Names}} {0} {name} ${{x}}",
    "-rf",
    "--help",
    "--",
    "-v/:/host",
    "key=value",
    "a=b,c:d,readonly",
    "type=bind,source=/,target=/host",
    "null",
    "[1, {a: b}] &x *x !y",
    "@file",
    "..",
    "tab\there",
    "line\nbreak\n#SBATCH --bogus",
    "\ntouch canary\n",
    "END\nEND_\n'\n)\ntouch canary",
    "carriage\rreturn",
    "\x1b[31mred",
    "ünïcödé 漢字 🙂",
    "e\u0301 combining",
    "\u202egnp.right-to-left",
    "caf\udce9 not UTF-8",
    "",
    "x" * 150,
)
"""Texts that a shell, a batch system, a format or a command line may interpret.

The jobs of the checks have each of them in variables, arguments, names and paths, as far as the file system and the
rules for names allow it; a text that is executed creates a file called `canary`.
"""


def folder_names(but: Collection[str] = ()) -> list[str]:
    """Return the texts that a file system allows as the name of a folder, except those in `but`."""
    return [text for text in HOSTILE if text not in ("", "..", *but) and "/" not in text]


def run_names(count: int, but: Collection[str] = ()) -> list[str]:
    """Return names of runs that together hold all texts that a name may hold, except those in `but`."""
    texts = [text for text in folder_names(but) if text.isprintable() and len(text) < LONGEST_NAME // 2]
    names = [" ".join(["n", *texts[number::count]]) for number in range(count)]
    assert not any(map(name_problem, names)), "a name of these checks is one that no run can have"
    return names


def executed_below(folder: Path) -> list[Path]:
    """Return the files that executed texts have created."""
    return list(folder.rglob("canary"))
