"""Strings that a shell would act on, secrets, and file systems that take nothing more."""

import contextlib
import dataclasses
import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from executor_jobs import make_job

import executors
from executors.conformance import HOSTILE
from executors.script import here_document
from neva_recipes.config import RunError
from tests.waiting import wait_for

pytestmark = pytest.mark.multiprocess

DUMP = """
keep = {name: value for name, value in os.environ.items() if name.startswith("HOSTILE_")}
(run_dir / "got.json").write_text(json.dumps({"env": keep, "argv": sys.argv[1:]}))
"""


def got(run):
    return json.loads((run.path / "got.json").read_text())


@pytest.fixture(autouse=True)
def canary(tmp_path, monkeypatch):
    place = tmp_path / "where commands would run"
    place.mkdir()
    monkeypatch.chdir(place)
    yield
    assert not list(tmp_path.rglob("canary*")), "a string was executed"


def test_launch_script_gives_the_rank_hostile_strings_unchanged(script, tmp_path):
    """What `executors.conformance.checks` looks at of a start and of a script, for the file in a run directory."""
    env = {f"HOSTILE_{number}": text for number, text in enumerate(HOSTILE)}
    folder = tmp_path / '$(touch canary) it\'s; `touch canary` "Grüße"\n&'
    job = make_job(script(DUMP), folder, name="$(touch canary) 'x' \"y\" ;", env=env, arguments=HOSTILE)
    run = executors.start_job(job, detach=True)
    assert run.wait() == 0
    (run.path / "got.json").unlink()
    assert subprocess.run([run.path / "launch.sh"], capture_output=True).returncode == 0
    assert got(run) == {"env": env, "argv": [*HOSTILE, str(run.path)]}
    assert run.path == job.run_dir
    assert executors.find_run(job.name, folder).path == run.path


def test_hostile_names_work_or_are_refused(script, runs_dir):
    path = script(DUMP)

    def attempt(name):
        try:
            run = executors.start_job(make_job(path, runs_dir, name=name), detach=True)
        except RunError as error:
            return str(error)
        run.wait()
        return run

    with ThreadPoolExecutor(4) as pool:
        results = dict(zip(HOSTILE, pool.map(attempt, HOSTILE), strict=True))
    refused = {name: error for name, error in results.items() if isinstance(error, str)}
    unsuitable = [name for name in HOSTILE if not name.isprintable() or "/" in name or not name]
    must_be_refused = {*unsuitable, *(name for name in HOSTILE if name.startswith(("-", ".")))}
    assert set(refused) == must_be_refused
    for error in refused.values():
        assert error.startswith("name=") and error.isprintable()
    for name, run in results.items():
        if name not in refused:
            assert run.status().state == "succeeded"
            assert got(run)["argv"] == [str(run.path)] and run.name.startswith(f"{name}-")
            assert executors.find_run(name, runs_dir).path == run.path
    assert len(executors.list_runs(runs_dir)) == len(HOSTILE) - len(refused)


def test_script_is_valid_posix_shell_for_every_string(tmp_path):
    for text in HOSTILE:
        job = make_job("rank.py", tmp_path / "runs", arguments=(text,), env={"A": text})
        job = dataclasses.replace(job, run_dir=Path(f"/tmp/{text.replace('/', '')}"), cwd=Path("/", text))
        checked = subprocess.run(["sh", "-n"], input=os.fsencode(job.script()), capture_output=True)
        assert checked.returncode == 0, checked.stderr


SECRET = "s3cr3t-value-4711"


def test_secrets_reach_the_ranks_and_no_file_or_argument_list(script, runs_dir, processes, monkeypatch, capfd):
    body = """
    (run_dir / "up").touch()
    wait("go")
    print("ok" if os.environ["HF_TOKEN"] == os.environ["my_api_key"] == "s3cr3t-" + "value-4711" else "wrong")
    """
    env = {"HF_TOKEN": SECRET, "my_api_key": SECRET, "PLAIN": "shown"}
    job = make_job(script(body), runs_dir, env=env)
    assert SECRET not in repr(job) + job.script() + job.to_json()
    run = executors.start_job(job, detach=True)
    wait_for(lambda: (run.path / "up").exists())
    assert len(processes.alive()) == 3
    assert not any(SECRET in command for command in processes.alive().values())
    (run.path / "go").touch()
    assert run.wait() == 0
    assert list(run.logs()) == ["ok"]
    for file in run.path.rglob("*"):
        assert file.is_dir() or SECRET.encode() not in file.read_bytes()
    assert json.loads((run.path / "job.json").read_text())["executor"]["secret_env"] == ["HF_TOKEN", "my_api_key"]

    monkeypatch.setenv("my_api_key", SECRET)
    with pytest.raises(RunError, match=r"HF_TOKEN was set for run .* set it in the environment"):
        run.resume()
    shell = subprocess.run([run.path / "launch.sh"], capture_output=True, text=True)
    assert shell.returncode != 0 and "HF_TOKEN: is not stored" in shell.stderr
    monkeypatch.setenv("HF_TOKEN", SECRET)
    run.resume()
    assert run.status().state == "succeeded"
    assert list(run.logs())[-1] == "ok"
    out, err = capfd.readouterr()
    assert SECRET not in out + err


def test_secrets_that_a_rank_prints_are_masked_in_its_logs(script, runs_dir, monkeypatch, capfd):
    body = """
    names = ("HF_TOKEN", "INHERITED_KEY", "DATABASE", "PEM_SECRET")
    for name in names:
        print(f"{name} is {os.environ[name]}!")
    print("\\rstep 1 " + os.environ["HF_TOKEN"], end="\\r")
    sys.stdout.buffer.write(b"\\xff " + os.environ["HF_TOKEN"].encode() + b" \\xfe\\n")
    print("https://me:hunter2secret@example.org/ is no variable", file=sys.stderr)
    print("TOKENIZERS_PARALLELISM is", os.environ["TOKENIZERS_PARALLELISM"])
    print(os.environ["HF_TOKEN"], end="", flush=True)
    sys.exit(3)
    """
    monkeypatch.setenv("INHERITED_KEY", f"{SECRET}-inherited")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false-as-ever")
    env = {
        "HF_TOKEN": SECRET,
        "DATABASE": f"postgres://me:{SECRET}@host/db",
        "PEM_SECRET": f"-----BEGIN X-----\n{SECRET}-of-a-second-line",
    }
    job = make_job(script(body), runs_dir, env=env)
    assert SECRET not in job.script() + job.to_json()
    assert executors.start_job(job, detach=False).wait() == 3
    (run,) = executors.list_runs(runs_dir)
    lines = (run.path / "logs" / "rank-0.log").read_bytes().split(b"\n")
    assert b"HF_TOKEN is ***!" in lines and b"INHERITED_KEY is ***!" in lines
    assert b"\xff *** \xfe" in lines and b"TOKENIZERS_PARALLELISM is false-as-ever" in lines
    assert b"https://me:***@example.org/ is no variable" in lines
    for file in run.path.rglob("*"):
        content = b"" if file.is_dir() else file.read_bytes()
        assert SECRET.encode() not in content and b"hunter2secret" not in content
    out, err = capfd.readouterr()
    assert "HF_TOKEN is ***!" in out
    assert SECRET not in out + err and "hunter2secret" not in out + err
    assert json.loads((run.path / "job.json").read_text())["executor"]["secret_env"] == sorted(env)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


FILL = """
def fill(path):
    with open(path, "wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
"""


def test_run_that_fills_the_disk_ends_in_a_true_state(script, small_disk):
    body = f"""
    {FILL.replace(chr(10), chr(10) + "    ")}
    print("before", flush=True)
    while not (run_dir / "logs" / "joined.log").read_text():
        time.sleep(0.01)
    (run_dir / "checkpoints").mkdir()
    fill(run_dir / "checkpoints" / "shard")
    print("x" * 100000, flush=True)
    sys.exit(28)
    """
    path = script(body)
    run = executors.start_job(make_job(path, small_disk / "runs"), detach=True)
    assert run.wait() == 28
    assert run.status().state == "failed" and run.status().reason == "rank 0 exited with code 28"
    assert next(run.logs()) == "before"
    # Still full: nothing can be started here, and what is there stays as it is.
    with contextlib.suppress(OSError), (small_disk / "rest").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))
    before = {file: file.read_bytes() for file in small_disk.rglob("*") if file.is_file()}
    with pytest.raises(
        RunError, match=r"/disk/runs: 0.0 MiB of its disk are free, and a checkpoint takes 0.1 MiB; name "
    ):
        executors.start_job(make_job(path, small_disk / "runs"))
    job = make_job(path, small_disk / "runs")
    with pytest.raises(RunError, match=r"cannot write a run directory: No space left on device"):
        executors.start_job(dataclasses.replace(job, plan=dataclasses.replace(job.plan, disk=None)))
    assert {file: file.read_bytes() for file in small_disk.rglob("*") if file.is_file()} == before
    with pytest.raises(RunError, match=r": 0.0 MiB of its disk are free, and a checkpoint takes 0.1 MiB; free "):
        run.resume()
    assert run.status().state == "failed" and run.status().exit_code == 28


def test_logs_that_cannot_grow_do_not_stop_a_run(script, runs_dir, tmp_path):
    path = script("print('first', flush=True)\nfor _ in range(200): print('x' * 1000)\n(run_dir / 'end').touch()")
    code = "import executor_jobs, executors, sys; " + (
        f"print(executors.start_job(executor_jobs.make_job({str(path)!r}, {str(runs_dir)!r}), detach=True).wait())"
    )
    # Blocks of 512 or 1024 bytes; Python would cut the byte code that it keeps.
    limited = f"export PYTHONDONTWRITEBYTECODE=1; ulimit -f 40; exec {shlex.join([sys.executable, '-c', code])}"
    result = subprocess.run(["sh", "-c", limited], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert result.stdout == "0\n", result.stderr
    (run,) = executors.list_runs(runs_dir)
    assert run.status().state == "succeeded" and (run.path / "end").exists()
    assert (run.path / "logs" / "joined.log").stat().st_size <= 40 * 1024
    assert next(run.logs()) == "first"


def test_file_text_stays_text_in_the_script(tmp_path):
    for text in ("END\n", "END\nEND_\ntouch canary\n", "$(touch canary)\n`touch canary`\n\\\n", "'\nno end"):
        subprocess.run(["sh"], input=here_document("out", text), text=True, check=True)
        assert Path("out").read_text().rstrip("\n") == text.rstrip("\n")
