"""Strings that a shell, YAML, JSON or a command line could be read wrongly at reach the ranks as they are."""

import json
import os
import subprocess

import pytest

import executors
from tests.docker.world import wait_for

pytestmark = pytest.mark.multiprocess

# The file that each of them would make if it were run.
CANARY = "touch canary"
STRINGS = [
    "two words",
    " leading and trailing ",
    "tab\there",
    "it's",
    'say "this"',
    "'\"'\"'",
    f"$({CANARY})",
    f"`{CANARY}`",
    f"; {CANARY}",
    f"&& {CANARY} #",
    f"| {CANARY}",
    f"> canary; {CANARY}",
    "${HOME}",
    "$HOME $$ $? !!",
    "*",
    "?[a-z]",
    "{a,b}",
    "~root",
    "back\\slash",
    "end\\",
    "%s %d %n",
    "a,b,readonly",
    "key=value",
    "type=bind,source=/,target=/host",
    "-v/:/host",
    "--privileged",
    "--",
    "line\nbreak",
    f"\n{CANARY}\n",
    "carriage\rreturn",
    "dätä 日本 🚀",
    "{{.Names}}",
    "",
    "x" * 5000,
]
BODY = """
told = {"arguments": sys.argv[1:-1], "env": {name: os.environ[name] for name in os.environ if name[:2] == "X_"}}
told["files"] = {path: Path(path).read_text() for path in json.loads(os.environ["X_FILES"])}
told["bytes"] = os.environb[b"X_BYTES"].hex()
(run_dir / "told.json").write_text(json.dumps(told))
"""
NAME = f'-it\'s "a" $({CANARY}) `{CANARY}` ;&|<> *?[] {{x}} \\ ~ %s 日本'.removeprefix("-")


def usable(text):
    """Return whether a text can be part of the name of a file that a field names."""
    return text.isprintable() and 0 < len(text) < 200 and "/" not in text


def test_they_reach_the_ranks(place, tmp_path):
    """Through the engine's API, and through the command line that the script gives."""
    env = {f"X_{number}": text for number, text in enumerate(STRINGS)}
    env["X_SECRET_KEY"] = "".join(STRINGS[:-1])
    folder = tmp_path / "files"
    mounts, inside = [], {}
    for number, text in enumerate(filter(usable, STRINGS)):
        path = folder / f"{text}{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        target = f"/mounted/{number}{text}"
        mounts.append(f"{path}:{target}:ro")
        inside[target] = text
    env["X_FILES"] = json.dumps(list(inside))
    env["X_BYTES"] = os.fsdecode(b"\xff\xfe not UTF-8")
    job = place.job(BODY, arguments=STRINGS, name=NAME, env=env, mounts=mounts)

    run = executors.start_job(job)
    assert run.wait() == 0, list(run.logs())
    started = json.loads((run.path / "told.json").read_text())
    assert started["arguments"] == STRINGS
    assert started["files"] == inside
    assert started["bytes"] == b"\xff\xfe not UTF-8".hex()
    assert {name: started["env"][name] for name in env} == env

    pasted = place.job(BODY, arguments=STRINGS, name=f"{NAME} by hand", env=env, mounts=mounts)
    shell = {**os.environ, **{name: env[name] for name in ("X_SECRET_KEY", "X_BYTES")}}
    done = subprocess.run(
        ["sh"],
        input=pasted.script(),
        encoding="utf-8",
        errors="surrogateescape",
        cwd=tmp_path,
        env=shell,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((pasted.run_dir / "told.json").read_text())
    assert told == started
    assert executors.find_run(pasted.run_dir).status().state == "succeeded"
    assert not list(tmp_path.rglob("canary"))
    wait_for(lambda: not place.engine.containers())
