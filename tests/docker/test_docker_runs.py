"""Runs in real containers: how they end, who ends them, and what is left."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import executors
from tests.docker.world import Engine, Place, contents, owners, wait_for, watchers
from tests.end_to_end.world import NEMO_RUN

pytestmark = pytest.mark.multiprocess

MISTAKE = """
(run_dir / "failure.json").write_text(json.dumps({"rank": rank, "kind": "user", "message": "no such thing"}))
sys.exit(2)
"""
ENDINGS = {
    "succeeded": ("print('done')", "succeeded", 0, None),
    "crash": ("raise SystemExit('oh')", "failed", 1, "rank 1 exited with code 1"),
    "mistake": (MISTAKE, "failed", 2, "no such thing"),
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", "failed", 137, "rank 1 was killed by signal 9"),
}
"""What rank 1 of two does, and how the run has ended then: state, exit code, start of the reason."""


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_exit_code_of_the_container_is_that_of_the_run(place, engine, ending):
    body, state, code, reason = ENDINGS[ending]
    since = time.time()
    first = "if rank == 0: print(os.getuid(), os.getgid()); (run_dir / 'told').touch(); sys.exit()\nwait('told')\n"
    run = place.start(first + body, size=2)
    name = place.container(run)
    assert run.wait() == code
    status = run.status()
    assert (status.state, status.exit_code) == (state, code)
    assert (status.reason or "").startswith(reason or "")
    assert "1000 1000" in list(run.logs(rank=0))
    assert owners(run.path) == {(1000, 1000)}
    wait_for(lambda: name not in engine.containers())
    assert dict(engine.exit_codes(since))[name] == code


def test_out_of_memory(place):
    run = place.start("held = [bytearray(1 << 20) for _ in range(4096)]", memory="200m", shm_size="64m")
    assert run.wait() == 137
    assert "out of memory" in run.status().reason


def test_what_a_rank_sees(place, tmp_path):
    """Data cannot be written, /dev/shm is as large as asked for, and no variable of the command gets in unasked."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "file").write_text("content")
    run = place.start(
        f"""
        try:
            Path({str(data / "file")!r}).write_text("changed")
        except OSError as error:
            print(error.strerror)
        shm = os.statvfs("/dev/shm")
        print(shm.f_blocks * shm.f_bsize, "CANARY" in os.environ, Path({str(data / "file")!r}).read_text())
        print(sorted(os.listdir({str(data)!r})), os.path.expanduser("~"), os.getcwd())
        """,
        mounts=[f"{data}:{data}:ro"],
        shm_size="96m",
    )
    assert run.wait() == 0
    lines = list(run.logs())
    assert lines == [
        "Read-only file system",
        f"{96 << 20} False content",
        f"['file'] /tmp {run.path}",
    ]


def nemo_run(*arguments):
    return subprocess.run([NEMO_RUN, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


def test_cancel_from_another_process(place):
    """Ranks are given the time they need, and those that want more are killed."""
    patient = """
    def save(*_):
        (run_dir / "saved").touch()
        sys.exit(0)
    signal.signal(signal.SIGTERM, save)
    print("up")
    wait("never")
    """
    run = place.start(patient)
    deaf = place.start("signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); wait('never')", grace_seconds=600)
    for started in (run, deaf):
        wait_for(lambda started=started: "up" in list(started.logs()))
    assert nemo_run("status", run.path).stdout.count("running") >= 1
    done = nemo_run("cancel", run.path)
    assert done.returncode == 0, done.stderr
    assert (run.status().state, run.wait()) == ("cancelled", 130)
    assert (run.path / "saved").exists()
    executors.find_run(deaf.path).cancel(force=True)
    assert deaf.status().state == "cancelled"
    wait_for(lambda: not place.engine.containers())


def test_a_killed_container(place):
    """Nobody inside can say how the run has ended: what stays outside does, or else whoever looks asks the engine."""
    watched = place.start("print('up'); wait('never')")
    alone = place.start("print('up'); wait('never')")
    for run in (watched, alone):
        wait_for(lambda run=run: "up" in list(run.logs()))
    for pid in watchers(alone):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not watchers(alone))
    assert alone.status().state == "running"
    for run in (watched, alone):
        place.engine.command("kill", place.container(run))
        assert run.wait() == 137
        assert (run.status().state, run.status().exit_code) == ("failed", 137)
        assert "container was killed" in run.status().reason
    assert owners(watched.path) == {(1000, 1000)}
    # What nobody removed goes when the run is resumed.
    assert place.engine.containers() == [place.container(alone)]
    (alone.path / "never").touch()
    alone.resume(detach=True)
    assert (alone.wait(), alone.status().attempt) == (0, 2)
    wait_for(lambda: not place.engine.containers())


def test_the_command_in_the_foreground(place, tmp_path):
    """Ctrl-C cancels, and so does the end of the command by SIGKILL."""
    starter = tmp_path / "start.py"
    starter.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent.parent.parent)!r})\n"
        "from pathlib import Path\nimport executors\n"
        "from tests.docker.world import Place\n"
        "place = Place(None, Path(sys.argv[1]))\n"
        "body = \"print('up', flush=True); wait('never')\"\n"
        "run = executors.start_job(place.job(body, name=sys.argv[2]))\n"
        "sys.exit(run.wait())\n"
    )
    for name, number in (("interrupted", signal.SIGINT), ("killed", signal.SIGKILL)):
        command = [sys.executable, "-P", str(starter), str(tmp_path), name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout.readline() == "up\n"
            process.send_signal(number)
            run = executors.find_run(name, place.runs_dir)
            assert run.wait() == 130
            assert process.wait(60) == (130 if number == signal.SIGINT else -signal.SIGKILL)
        assert run.status().state == "cancelled"
    wait_for(lambda: not place.engine.containers())


SECRET = "s3cret value-with 'quotes' and $(more)"


def test_secrets(place, engine, monkeypatch):
    """They reach the rank, and nothing else: no file, no argument list, not what the engine tells or keeps."""
    monkeypatch.setenv("MY_TOKEN", SECRET + " passed")
    body = """
    for name in ("MY_TOKEN", "OTHER_KEY"):
        (run_dir / name).write_text(hashlib.sha256(os.environ[name].encode()).hexdigest())
    print("the secret is", os.environ["MY_TOKEN"], "and", os.environ["OTHER_KEY"])
    wait("go")
    """
    run = place.start(body, pass_env=["MY_TOKEN"], env={"OTHER_KEY": SECRET, "OPEN": "seen"})
    name = place.container(run)
    wait_for(lambda: list(run.logs()))
    told = json.dumps(engine.inspect(name)).encode()
    assert b"OPEN=seen" in told
    arguments = b"".join(_arguments(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    assert b"executors._docker_init" in arguments
    kept = contents(engine.folder / "data" / "containers")
    assert name.encode() in kept
    logs = engine.command("logs", name).encode()
    needle = SECRET[:14].encode()
    for where, text in {"inspect": told, "arguments": arguments, "engine": kept, "docker logs": logs}.items():
        assert needle not in text, where
    (run.path / "go").touch()
    assert run.wait() == 0
    assert needle not in contents(run.path)
    for variable, value in (("MY_TOKEN", SECRET + " passed"), ("OTHER_KEY", SECRET)):
        assert (run.path / variable).read_text() == hashlib.sha256(value.encode()).hexdigest()
    assert list(run.logs()) == ["the secret is *** and ***"]


def _arguments(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.slow
def test_the_engine_is_killed(engine_folder, root_file_system, tmp_path, monkeypatch):
    """A run outlives its engine; one that the engine ends as it comes back is known to have been killed."""
    engine = Engine(engine_folder / "second")
    monkeypatch.setenv("DOCKER_HOST", engine.address)
    place = Place(engine, tmp_path)
    try:
        engine.start()
        engine.command("import", str(root_file_system), Place.IMAGE)
        outlives, ended = (place.start("print('up'); wait('go')", name=name) for name in ("outlives", "ended"))
        for run in (outlives, ended):
            wait_for(lambda run=run: "up" in list(run.logs()))
        engine.kill()
        assert outlives.status().state == "running"
        (outlives.path / "go").touch()
        assert (outlives.wait(), outlives.status().state) == (0, "succeeded")
        engine.start()
        assert ended.wait() != 0
        assert ended.status().state in ("failed", "cancelled")
        wait_for(lambda: not engine.containers())
    finally:
        engine.stop()


def test_the_script_of_a_lost_run(place):
    """Of a container that is gone nobody can tell more; the script starts the run again and ends as it does."""
    run = place.start("print('up'); wait('go'); sys.exit(3)")
    wait_for(lambda: "up" in list(run.logs()))
    for pid in watchers(run):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not watchers(run))
    running = subprocess.run(["sh", run.path / "launch.sh"], capture_output=True, text=True, timeout=60, check=False)
    assert running.returncode != 0
    assert run.status().state == "running"
    place.engine.command("rm", "--force", place.container(run))
    assert (run.wait(), run.status().state) == (1, "lost")
    (run.path / "go").touch()
    again = subprocess.run(["sh", run.path / "launch.sh"], capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == 3, again.stderr
    assert (run.status().state, run.status().exit_code, run.status().attempt) == ("failed", 3, 2)
