"""A job as shell text."""

import re
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

from neva_recipes.secrets import secret_names

if TYPE_CHECKING:
    from executors.job import Job

__all__ = ["run_directory_script"]


def run_directory_script(
    job: "Job",
    launcher: tuple[str, ...],
    files: Mapping[str, str] | None = None,
    *,
    standard_input: tuple[str, ...] = (),
    before: tuple[str, ...] = (),
) -> str:
    """Return POSIX shell text that writes the run directory if it is missing, and then starts it.

    Args:
        job: The job.
        launcher: Program and arguments that start a written run directory, which is appended.
        files: Files of the executor's own in the run directory: name and text of each.
        standard_input: Variables that are written to the launcher, as NAME=value with a NUL after each.
        before: Lines that go before the launcher, once the run directory is there.
    """
    lines = [
        "#!/bin/sh",
        re.sub(r"[\x00-\x1f\x7f]", " ", f"# {job.layout.world_size} x {shlex.join(job.command)}"),
        "(",
        "set -eu",
        *(
            f': "${{{name}:?is not stored in this script, set it in the environment}}"'
            for name in secret_names(job.env)
        ),
        f"cd {shlex.quote(str(job.cwd))}",
        f"run={shlex.quote(str(job.run_dir))}",
        'if [ ! -e "$run/job.json" ]; then',
        'mkdir -p "$run/logs"',
        *(_here_document(f'"$run/{name}"', text) for name, text in (job.files | dict(files or {})).items()),
        # What makes it a run comes last, and whole.
        _here_document('"$run/.job.json.new"', job.to_json()),
        'mv "$run/.job.json.new" "$run/job.json"',
        "fi",
        *before,
        f'{_pipe(standard_input)}exec {shlex.join(launcher)} "$run"',
        ")",
    ]
    return "\n".join(lines) + "\n"


def _pipe(names: tuple[str, ...]) -> str:
    """Return shell text that writes variables for the next command; printf is the shell's own, and no process."""
    if not names:
        return ""
    form = "".join(f"{name}=%s\\0" for name in names)
    values = " ".join(f'"${name}"' for name in names)
    return f"printf '{form}' {values} | "


def _here_document(target: str, text: str) -> str:
    marker = "END"
    while marker in text.split("\n"):
        marker += "_"
    return f"cat >{target} <<'{marker}'\n{text if text.endswith(chr(10)) else text + chr(10)}{marker}"
