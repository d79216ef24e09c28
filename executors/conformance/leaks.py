"""Searches for secrets of a run: in arguments of processes, in files, and in the output of commands."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from executors.kinds import kind_class
from executors.runs.run import Run
from neva_recipes.run_directory.layout import RECIPE_FILE

__all__ = ["in_arguments", "in_commands", "in_files", "in_texts"]

_RUN_COMMANDS = """
import json, sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from neva_recipes.cli.main import main
told = {}
for words in json.loads(sys.stdin.read()):
    said = StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = main(words)
    told[" ".join(words)] = [code, said.getvalue()]
print(json.dumps(told))
"""

_PROFILE = """
import os
import fiddle as fdl
from {module} import {name}
from neva_recipes.config import config

def probe() -> fdl.Config[{name}]:
    return config({name}, **{fields!r}, env={{name: os.environ["HANDED_OVER"] for name in {secret_names!r}}})
"""

_SECONDS = 120.0


def in_arguments(secrets: Sequence[str]) -> list[str]:
    """Return the command lines of this machine's processes that hold a secret."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if any(secret in text for secret in secrets):
                found.append(f"the arguments of a process: {text}")
    return found


def in_files(secrets: Sequence[str], places: Iterable[Path]) -> list[str]:
    """Return the files, given or below given folders, that hold a secret."""
    needles = [secret.encode() for secret in secrets]
    found = []
    for path in _files(places):
        with suppress(OSError):  # removed, or not readable
            content = path.read_bytes()
            if any(needle in content for needle in needles):
                found.append(str(path))
    return found


def _files(places: Iterable[Path]) -> Iterator[Path]:
    for place in places:
        # os.walk skips folders that are removed meanwhile, such as those of jobs that end.
        below = (Path(folder, name) for folder, _, names in os.walk(place) for name in names)
        yield from filter(Path.is_file, below if place.is_dir() else [place])


def in_texts(secrets: Sequence[str], texts: Mapping[str, str]) -> list[str]:
    """Return the names of the texts that hold a secret."""
    return [name for name, text in texts.items() if any(secret in text for secret in secrets)]


def in_commands(secrets: Mapping[str, str], run: Run) -> list[str]:
    """Return the commands that print a secret: commands about a run, and dry runs with secrets in a profile.

    Args:
        secrets: The secrets by the names of their variables.
        run: The run.
    """
    path = str(run.path)
    about = [["status"], ["status", path], ["logs", path], ["logs", path, "--rank", "0"], ["executors"]]
    for form in ("text", "json"):
        about += [["show", path, "--format", form], ["diff", path, path, "--format", form]]
        about += [["diff", path, "trainer.seed=1", "--format", form]]
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "profile.py"
        profile.write_text(_profile(run, list(secrets)), encoding="utf-8")
        dry = [RECIPE_FILE, "--executor", "probe", "--recipes", str(profile), "--dry-run", "--format"]
        about += [[*dry, form] for form in ("text", "yaml", "json", "python", "html")]
        about += [["executors", "probe", "--recipes", str(profile)]]
        told = _outputs(about, run.path, next(iter(secrets.values())))
    wrong = {name: text for name, (code, text) in told.items() if code}
    assert not wrong, f"commands on the run have failed: {wrong}"
    return in_texts(list(secrets.values()), {f"the output of {name}": text for name, (_, text) in told.items()})


def _profile(run: Run, names: list[str]) -> str:
    record = run.record()["executor"]
    cls = kind_class(record["kind"])
    fields = {name: value for name, value in record.items() if name not in ("kind", "env", "secret_env")}
    return _PROFILE.format(module=cls.__module__, name=cls.__name__, fields=fields, secret_names=names)


def _outputs(commands: list[list[str]], folder: Path, secret: str) -> dict[str, tuple[int, str]]:
    """Return exit code and output of commands that have the secret only in a variable with an ordinary name."""
    environment = {name: value for name, value in os.environ.items() if value != secret}
    done = subprocess.run(
        [sys.executable, "-P", "-c", _RUN_COMMANDS],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        cwd=folder,
        env={**environment, "HANDED_OVER": secret},
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"commands on the run: {done.stderr}"
    told: dict[str, tuple[int, str]] = json.loads(done.stdout.splitlines()[-1])
    return told
