"""Texts that must stay texts, wherever they stand."""

from collections.abc import Collection
from pathlib import Path

from neva_recipes.plan.checks import LONGEST_NAME, name_problem

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
"""Texts that a shell, a batch system, a format or a command line may take for something else than a text.

Each stands in the variables, the arguments, the names and the paths of the jobs that the checks start, wherever a file
system and the rules on names allow it; one that is executed makes a file called `canary`.
"""


def folder_names(but: Collection[str] = ()) -> list[str]:
    """Return those that a file system allows as the name of a folder, without some."""
    return [text for text in HOSTILE if text not in ("", "..", *but) and "/" not in text]


def run_names(count: int, but: Collection[str] = ()) -> list[str]:
    """Return names of runs that hold all between them which a name may hold, without some."""
    texts = [text for text in folder_names(but) if text.isprintable() and len(text) < LONGEST_NAME // 2]
    names = [" ".join(["n", *texts[number::count]]) for number in range(count)]
    assert not any(map(name_problem, names))
    return names


def executed_below(folder: Path) -> list[Path]:
    """Return the files that such a text has made when it was executed."""
    return list(folder.rglob("canary"))
