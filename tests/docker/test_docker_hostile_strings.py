"""Mounts and labels of a container whose names a shell, a CSV line or the engine could take for something else.

That variables, arguments, names and paths are carried is part of the contract (test_docker_conformance.py).
"""

import json
import os
import subprocess

import pytest

import executors
from executors.conformance import HOSTILE
from tests.docker.world import PATIENCE
from tests.waiting import wait_for

pytestmark = pytest.mark.multiprocess

BODY = """
told = {path: Path(path).read_text() for path in json.loads(os.environ["X_FILES"])}
(run_dir / "told.json").write_text(json.dumps([told, os.environb[b"X_BYTES"].hex()]))
wait("go")
"""
NAME = 'it\'s "a" $(touch canary) `touch canary` ;&|<> *?[] {x} \\ ~ %s 日本'


def test_mounts_and_labels(place, tmp_path):
    """Through the engine's API, and through the command line that the script gives."""
    mounts, inside = [], {}
    for number, text in enumerate(text for text in HOSTILE if text.isprintable() and "/" not in text):
        path = tmp_path / "files" / f"{text}{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        target = f"/mounted/{number}{text}"
        mounts.append(f"{path}:{target}:ro")
        inside[target] = text
    env = {"X_FILES": json.dumps(list(inside)), "X_BYTES": os.fsdecode(b"\xff\xfe not UTF-8")}
    told = [inside, b"\xff\xfe not UTF-8".hex()]

    def look(run):
        wait_for(lambda: (run.path / "told.json").exists())
        found = place.engine.inspect(place.container(run))
        labels = {"nemo-run.name": run.record()["name"], "nemo-run.directory": str(run.path)}
        assert labels.items() <= found["Config"]["Labels"].items()
        assert found["Name"].startswith("/nemo-run-it-s-a-touch-canary-touch-canary-x-s-")
        (run.path / "go").touch()
        assert run.wait() == 0, list(run.logs())
        assert json.loads((run.path / "told.json").read_text()) == told

    look(executors.start_job(place.job(BODY, name=NAME, env=env, mounts=mounts), detach=True))
    pasted = place.job(BODY, name=f"{NAME} by hand", env=env, mounts=mounts)
    script = pasted.script().encode("utf-8", "surrogateescape")
    with subprocess.Popen(["sh"], stdin=subprocess.PIPE, cwd=tmp_path) as shell:
        shell.stdin.write(script)
        shell.stdin.close()
        wait_for(lambda: (pasted.run_dir / "state.json").exists())
        look(executors.find_run(pasted.run_dir))
        assert shell.wait(PATIENCE) == 0
    assert not list(tmp_path.rglob("canary"))
    wait_for(lambda: not place.engine.containers())
