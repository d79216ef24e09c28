"""Writes a job as a shell script."""

import re
import shlex
from collections.abc import Mapping

from executors.base import Job
from neva_recipes.run_directory.layout import JOB_FILE, LOGS
from neva_recipes.secrets import secret_names

__all__ = ["here_document", "run_directory_script"]


def run_directory_script(
    job: Job,
    launcher: tuple[str, ...],
    files: Mapping[str, str] | None = None,
    *,
    standard_input: tuple[str, ...] = (),
    before: tuple[str, ...] = (),
) -> str:
    """Return a POSIX shell script that writes the run directory if it is missing and then starts the job.

    Args:
        job: The job.
        launcher: Command that starts the job of a run directory; the path of the directory is appended.
        files: Further files of the executor in the run directory: name and text of each.
        standard_input: Variables that the launcher reads from standard input, as NAME=value with a NUL after each.
        before: Lines between the writing of the run directory and the launcher.
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
        f'if [ ! -e "$run/{JOB_FILE}" ]; then',
        f'mkdir -p "$run/{LOGS}"',
        *(here_document(f'"$run/{name}"', text) for name, text in (job.files | dict(files or {})).items()),
        # job.json makes the directory a run: it is written last, and atomically.
        here_document(f'"$run/.{JOB_FILE}.new"', job.to_json()),
        f'mv "$run/.{JOB_FILE}.new" "$run/{JOB_FILE}"',
        "fi",
        *before,
        f'{_pipe(standard_input)}exec {shlex.join(launcher)} "$run"',
        ")",
    ]
    return "\n".join(lines) + "\n"


def _pipe(names: tuple[str, ...]) -> str:
    """Return shell text that pipes variables to the next command; printf is a builtin and starts no process."""
    if not names:
        return ""
    form = "".join(f"{name}=%s\\0" for name in names)
    values = " ".join(f'"${name}"' for name in names)
    return f"printf '{form}' {values} | "


def here_document(target: str, text: str) -> str:
    """Return a here-document that writes a text to a file given as a shell word; its marker is no line of the text."""
    marker = "END"
    while marker in text.split("\n"):
        marker += "_"
    return f"cat >{target} <<'{marker}'\n{text if text.endswith(chr(10)) else text + chr(10)}{marker}"
