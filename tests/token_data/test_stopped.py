"""A command that was killed or interrupted: the next one goes on, and writes the same bytes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from neva_recipes.token_data import make_token_data
from tests.token_data.reading import whole
from tests.tokenizers.texts import english_lines

KILLED = """
import json, os, signal, sys, time
from pathlib import Path
from neva_recipes.token_data import make_token_data

given = json.loads(sys.argv[1])
calls = 0

def tell(progress):
    global calls
    calls += 1
    time.sleep(0.25)
    if calls == given["kill_at"]:
        print(*[child.pid for child in __import__("psutil").Process().children(recursive=True)], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    files = [Path(name) for name in given["files"]]
    make_token_data(files, Path(given["out"]), tokenizer=Path(given["tokenizer"]), json_keys=["text"], append_eod=True,
                    split=(8, 1, 1), workers=given["workers"], tell=tell)
"""


@pytest.fixture
def files(tmp_path):
    lines = english_lines()
    found = []
    for number in range(12):
        part = lines[number * 20 : number * 20 + 40]
        found.append(tmp_path / f"{number:02}.jsonl")
        found[-1].write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
    return found


def make(files, out, tokenizer, **options):
    return make_token_data(
        files, out, tokenizer=tokenizer, json_keys=["text"], append_eod=True, split=(8, 1, 1), **options
    )


def kill_at(call, files, out, tokenizer, workers=1):
    given = {"kill_at": call, "files": list(map(str, files)), "out": str(out), "tokenizer": str(tokenizer)}
    script = out.parent / "killed.py"
    script.write_text(KILLED)
    return subprocess.run(
        [sys.executable, str(script), json.dumps({**given, "workers": workers})],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])},
    )


def test_after_kills_the_bytes_are_the_same(files, byte_level, tmp_path):
    make(files, tmp_path / "whole", byte_level)
    out = tmp_path / "out"
    read = []
    for call in (3, 3):
        killed = kill_at(call, files, out, byte_level)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not out.exists()
    found = make(files, out, byte_level, tell=lambda progress: read.append(progress.file))
    assert found.goes_on
    assert read[0] >= 1, "it did not go on where the killed ones stopped"
    assert whole(out) == whole(tmp_path / "whole")
    assert not (tmp_path / ".out.unfinished").exists()


def test_processes_end_with_the_one_that_started_them(files, byte_level, tmp_path):
    make(files, tmp_path / "whole", byte_level)
    killed = kill_at(3, files, tmp_path / "out", byte_level, workers=2)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    children = [int(pid) for pid in killed.stdout.split()]
    assert len(children) >= 2
    deadline = time.monotonic() + 20
    while any(psutil.pid_exists(pid) for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    # What one process has begun, several go on with.
    assert make(files, tmp_path / "out", byte_level, workers=2).goes_on
    assert whole(tmp_path / "out") == whole(tmp_path / "whole")


def test_after_ctrl_c_it_goes_on(files, byte_level, tmp_path):
    make(files, tmp_path / "whole", byte_level)

    def stop(progress):
        time.sleep(0.1)
        if progress.file == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(files, tmp_path / "out", byte_level, tell=stop)
    assert make(files, tmp_path / "out", byte_level).goes_on
    assert whole(tmp_path / "out") == whole(tmp_path / "whole")


@pytest.mark.parametrize("change", ["file", "tokenizer", "split"])
def test_what_was_begun_otherwise_begins_anew(change, files, byte_level, pieces, tmp_path):
    def stop(progress):
        time.sleep(0.1)
        if progress.file == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(files, tmp_path / "out", byte_level, tell=stop)
    if change == "file":
        files[0].write_text(json.dumps({"text": "another text"}) + "\n")
    tokenizer = pieces if change == "tokenizer" else byte_level
    options = {"tokenizer": tokenizer, "json_keys": ["text"], "split": (1, 0, 0) if change == "split" else (8, 1, 1)}
    assert not make_token_data(files, tmp_path / "out", **options, append_eod=True).goes_on
    make_token_data(files, tmp_path / "whole", **options, append_eod=True)
    assert whole(tmp_path / "out") == whole(tmp_path / "whole")


def test_killed_when_all_was_written(files, byte_level, tmp_path):
    out, left = tmp_path / "out", tmp_path / ".out.unfinished"
    make(files, out, byte_level)
    before = whole(out)
    left.mkdir()
    (left / "reached.json").write_text("{}")
    with pytest.raises(ValueError, match="out: exists already"):
        make(files, out, byte_level)
    assert not left.exists()
    assert whole(out) == before
