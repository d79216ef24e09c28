"""Modules and shell lines that a Slurm job runs before its ranks; the first that fails ends the job and is reported.

Standard library only, apart from `RunError`: `executors.slurm.end` imports it too.
"""

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from neva_recipes.config import RunError

__all__ = ["FAILED_LINE", "require_shell", "setup_block", "setup_failure"]

FAILED_LINE = '${_nemo_run_at:+"$((_nemo_run_line - _nemo_run_at))"}'
"""Shell word for the line at which the shell ended, counted from 1; expands to nothing outside of the block.

All names that the script defines begin with `_nemo_run_`, because the user's lines run in the same shell.
"""

_WORDS_OF_THE_SHELL = re.compile(r"\S+/slurm_script: line \d+: ")
"""Beginning of bash's error messages about a script under the name that Slurm gives it."""

_PATIENCE_SECONDS = 10.0


def setup_block(modules: Sequence[str], setup: Sequence[str]) -> list[str]:
    """Return bash code of modules and lines that ends the script at the first failing line; empty without lines.

    A line fails as under `set -e` and `pipefail`: not in a condition, nor before `&&` and `||`. Unlike `set -e`, the
    ERR trap does not apply inside functions; it recognizes sourced scripts by the depth of BASH_SOURCE. The DEBUG trap,
    which runs before each command outside of both, records the line at which the shell itself ends (`exit`, `set -u`,
    an unclosed quote); bash counts the commands of an EXIT trap as line 1.
    """
    lines = _lines(modules, setup)
    if not lines:
        return []
    return [
        "# The first line to fail ends the job. A writer whose reader has enough (SIGPIPE) has not failed.",
        "set -o pipefail",
        """trap '[ "$LINENO" -eq 1 ] || _nemo_run_line=$LINENO' DEBUG""",
        "trap '_nemo_run_code=$?; "
        """[ "${#BASH_SOURCE[@]}" -gt 1 ] || [ "$_nemo_run_code" -eq 141 ] || exit "$_nemo_run_code"' ERR""",
        "_nemo_run_at=$LINENO",
        *lines,
        "trap - DEBUG ERR",
        "set +o pipefail",
        "_nemo_run_at=",
    ]


def _lines(modules: Sequence[str], setup: Sequence[str]) -> list[str]:
    return [*(f"module load {shlex.quote(name)}" for name in modules), *setup]


def setup_failure(executor: Mapping[str, Any], number: int, code: int, last_line: str) -> str:
    """Return why a job has ended before its ranks started.

    Args:
        executor: The executor, as job.json holds it.
        number: The line at which the shell ended, counted from 1.
        code: Exit code of the script.
        last_line: The last line of the log, which may be an error message of the shell.
    """
    modules, setup = executor["modules"], executor["setup"]
    lines = _lines(modules, setup)
    index = min(max(number, 1), len(lines)) - 1
    field = "executor.modules" if index < len(modules) else "executor.setup"
    what = f"{field}: {lines[index]!r}"
    said = _WORDS_OF_THE_SHELL.sub("", last_line) if _WORDS_OF_THE_SHELL.match(last_line) else ""
    if code == 0:
        return f"{what} has ended the job before its ranks (exit code 0)"
    words = f" ({said})" if said else ""
    return f"{what} failed with exit code {code}{words}; if that does not matter, append `|| true`"


def require_shell(setup: Sequence[str]) -> None:
    """Raise `RunError` if lines are not valid shell, or leave something open that would include the lines after them.

    Accepts everything if this machine has no bash.
    """
    if problem := _problem("\n".join(setup)):
        raise RunError(f"executor.setup: {problem}")


@lru_cache(maxsize=8)
def _problem(text: str) -> str | None:
    # bash -n only parses and does not run commands such as `shopt -s extglob`.
    command = ["bash", "--norc", "-O", "extglob", "-n", "-c", f"{text}\n"]
    environment = {name: value for name, value in os.environ.items() if name not in ("BASH_ENV", "SHELLOPTS")}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment | {"LC_ALL": "C"},
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # For bash, a here-document without its end is only a warning.
    said = [re.sub(r"^bash: (-c: )?((line \d+: )?warning: )?", "", line) for line in done.stderr.splitlines()]
    if not said and re.search(r"(?<!\\)(\\\\)*\\$", text):
        return "the last line ends with a backslash, and nothing follows: remove it"
    return said[0] if said else None
