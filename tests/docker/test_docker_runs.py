"""Runs in real containers: how they end, who ends them, and what is left."""

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import executors
from executors.docker.executor import DockerExecutor
from neva_recipes.config import UserError
from neva_recipes.run_directory import processes
from neva_recipes.run_directory.state import State, write_state
from tests.docker.world import PATIENCE, Place, contents, owners, watchers
from tests.end_to_end.world import NEMO_RUN
from tests.waiting import wait_for

pytestmark = pytest.mark.multiprocess

MISTAKE = """
(run_dir / "failure.json").write_text(json.dumps({"rank": rank, "kind": "user", "message": "no such thing"}))
sys.exit(2)
"""
SIGHTS = """
data = sys.argv[1]
try:
    Path(data, "file").write_text("changed")
except OSError as error:
    print(error.strerror)
shm = os.statvfs("/dev/shm")
print(shm.f_blocks * shm.f_bsize, "CANARY" in os.environ, Path(data, "file").read_text())
print(os.getuid(), os.getgid(), sorted(os.listdir(data)), os.path.expanduser("~"), os.getcwd())
"""
ENDINGS = {
    "succeeded": (SIGHTS, "succeeded", 0, None),
    "crash": ("raise SystemExit('oh')", "failed", 1, "rank 1 exited with code 1"),
    "mistake": (MISTAKE, "failed", 2, "no such thing"),
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", "failed", 137, "rank 1 was killed by signal 9"),
    "out of memory": (
        "held = [bytearray(1 << 20) for _ in range(4096)]",
        "failed",
        137,
        "rank 1 was killed by signal 9 (SIGKILL: out of memory)",
    ),
}
"""What rank 1 of two does, and how the run has ended then: state, exit code, start of the reason."""


@pytest.fixture(scope="module")
def endings(engine, tmp_path_factory):
    """A run for each ending, one beside the other: its name leads to the run and its container, and the time before."""
    place = Place(engine, tmp_path_factory.mktemp("endings"))
    data = place.folder / "data"
    data.mkdir()
    (data / "file").write_text("content")
    first = "if rank == 0: (run_dir / 'told').touch(); sys.exit()\nwait('told')\n"
    since, started = time.time(), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", engine.address)
        patch.setenv("CANARY", "seen")
        for ending, (body, *_) in ENDINGS.items():
            limits = {"shm_size": "96m", "memory": "200m" if ending == "out of memory" else None}
            body = first + textwrap.dedent(body)
            run = place.start(body, size=2, arguments=[str(data)], mounts=[f"{data}:{data}:ro"], **limits)
            started[ending] = (run, place.container(run))
    return since, started


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_exit_code_of_the_container_is_that_of_the_run(endings, engine, ending):
    _, state, code, reason = ENDINGS[ending]
    since, started = endings
    run, name = started[ending]
    assert run.wait() == code
    status = run.status()
    assert (status.state, status.exit_code) == (state, code)
    assert (status.reason or "").startswith(reason or "")
    assert owners(run.path) == {(1000, 1000)}
    wait_for(lambda: name not in engine.containers())
    assert dict(engine.exit_codes(since))[name] == code


def test_what_a_rank_sees(endings):
    """Data cannot be written, /dev/shm is as large as asked for, and no variable of the command gets in unasked."""
    run, _ = endings[1]["succeeded"]
    assert run.wait() == 0
    assert list(run.logs(rank=1)) == [
        "Read-only file system",
        f"{96 << 20} False content",
        f"1000 1000 ['file'] /tmp {run.path}",
    ]


def nemo_run(*arguments):
    return subprocess.run([NEMO_RUN, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)


def test_cancel_from_another_process(place):
    """And by `docker stop`: ranks are given the time they need, and those that want more are killed."""
    patient = """
    def save(*_):
        (run_dir / "saved").touch()
        sys.exit(0)
    signal.signal(signal.SIGTERM, save)
    print("up")
    wait("never")
    """
    run = place.start(patient, grace_seconds=600)
    deaf = place.start("signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); wait('never')", grace_seconds=600)
    stopped = place.start(patient, grace_seconds=600)
    saves = place.start("print('up'); assert signal.sigwait({signal.SIGUSR2}); sys.exit(75)")
    for started in (run, deaf, stopped, saves):
        wait_for(lambda started=started: "up" in list(started.logs()))
    place.engine.command("stop", place.container(stopped))
    assert nemo_run("status", run.path).stdout.count("running") >= 1
    done = nemo_run("cancel", run.path)
    assert done.returncode == 0, done.stderr
    for asked in (run, stopped):
        assert (asked.status().state, asked.wait()) == ("cancelled", 130)
        assert (asked.path / "saved").exists()
    DockerExecutor.request_stop(saves.path, saves.supervisor())
    assert (saves.wait(), saves.status().reason) == (75, "stopped on request")
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
    # What nobody removed goes when the run is resumed.
    wait_for(lambda: place.engine.containers() == [place.container(alone)])
    assert owners(watched.path) == {(1000, 1000)}
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
    # Python raises the interrupt again, once the run has ended, and ends of it.
    ends = {"interrupted": (signal.SIGINT, -signal.SIGINT), "killed": (signal.SIGKILL, -signal.SIGKILL)}
    commands = {}
    with contextlib.ExitStack() as stack:
        for name in ends:
            command = [sys.executable, "-P", str(starter), str(tmp_path), name]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            commands[name] = stack.enter_context(process)
            stack.callback(process.kill)
        for name, (number, code) in ends.items():
            assert commands[name].stdout.readline() == "up\n"
            commands[name].send_signal(number)
            run = executors.find_run(name, place.runs_dir)
            assert run.wait() == 130
            assert commands[name].wait(PATIENCE) == code
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
    assert b"executors.docker.init" in arguments
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
def test_the_engine_is_killed(gpu_place, gpu_engine):
    """A run outlives its engine; one that the engine ends as it comes back is known to have been killed."""
    outlives, ended = (gpu_place.start("print('up'); wait('go')", name=name) for name in ("outlives", "ended"))
    for run in (outlives, ended):
        wait_for(lambda run=run: "up" in list(run.logs()))
    gpu_engine.kill()
    assert outlives.status().state == "running"
    (outlives.path / "go").touch()
    assert (outlives.wait(), outlives.status().state) == (0, "succeeded")
    gpu_engine.start()
    assert ended.wait() != 0
    assert ended.status().state in ("failed", "cancelled")
    # What could not be removed while there was no engine goes with the next launch.
    gpu_place.executor().require_ready(gpu_place.job("pass"))
    wait_for(lambda: not gpu_engine.containers())


def test_the_image_goes_between_the_look_and_the_start(place, monkeypatch):
    """What the run has of it is the reason, and files of its user."""
    look = DockerExecutor.require_ready
    place.engine.command("tag", Place.IMAGE, "neva-test:short")

    def look_and_remove(self, job):
        look(self, job)
        place.engine.command("rmi", "neva-test:short")

    monkeypatch.setattr(DockerExecutor, "require_ready", look_and_remove)
    with pytest.raises(UserError, match=r"executor\.image=neva-test:short: no such image here") as caught:
        place.start("pass", image="neva-test:short")
    assert "\n" not in str(caught.value)
    (run,) = executors.list_runs(place.runs_dir)
    assert (run.status().state, run.status().reason) == ("failed", str(caught.value))
    assert owners(run.path) == {(1000, 1000)}


def test_containers_that_nobody_removed(place, tmp_path):
    """The next launch removes those with nothing to tell: whose run has ended or is gone, whose command is."""
    here, me = f"nemo-run.host={socket.gethostname()}", processes.identify(os.getpid())
    runs = {}
    for state in ("running", "failed"):
        (tmp_path / state).mkdir()
        write_state(tmp_path / state, State(state=state))
        runs[state] = [here, f"nemo-run.directory={tmp_path / state}"]
    gone = [here, f"nemo-run.directory={tmp_path / 'gone'}"]
    stay = {
        "alien": [],
        "of-another-machine": ["nemo-run.host=another", *gone[1:]],
        "not-told-yet": runs["running"],
        "of-a-command": [*gone, f"nemo-run.trial={json.dumps(me)}"],
    }
    go = {
        "told": runs["failed"],
        "of-no-run": gone,
        "of-no-command": [*runs["running"], f"nemo-run.trial={json.dumps(me | {'pid_start': 1})}"],
    }
    for name, labels in (stay | go).items():
        place.engine.command("create", "--name", name, *(f"--label={label}" for label in labels), Place.IMAGE, "true")
    place.executor().require_ready(place.job("pass"))
    assert set(place.engine.containers()) == set(stay)
    place.engine.command("rm", *stay)


ROOTLESS = {"SecurityOptions": ["name=seccomp,profile=default", "name=rootless"], "MemoryLimit": False}
"""What an engine says of itself that runs as a user, on a machine that lets users limit nothing."""


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"user": "1000:1000"}, r"executor\.user: .* runs as a user \(rootless\).*: set executor\.user=0:0"),
        ({"user": "0:0", "memory": "1g"}, r"executor\.memory: .* cannot limit it"),
        ({"user": "0:0"}, None),
    ],
)
def test_an_engine_that_runs_as_a_user(place, fields, refusal):
    with pytest.raises(UserError, match=refusal) if refusal else contextlib.nullcontext():
        place.executor(**fields)._require_able(ROOTLESS)


def test_the_script_of_a_lost_run(place):
    """Nobody can tell more of a container that is gone; the script starts the run again and ends as it does."""
    run = place.start("print('up'); wait('go'); sys.exit(3)")
    wait_for(lambda: "up" in list(run.logs()))
    for pid in watchers(run):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not watchers(run))
    running = subprocess.run(["sh", run.path / "launch.sh"], capture_output=True, text=True, timeout=120, check=False)
    assert running.returncode != 0
    assert run.status().state == "running"
    place.engine.command("rm", "--force", place.container(run))
    assert (run.wait(), run.status().state) == (1, "lost")
    (run.path / "go").touch()
    again = subprocess.run(["sh", run.path / "launch.sh"], capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 3, again.stderr
    assert (run.status().state, run.status().exit_code, run.status().attempt) == ("failed", 3, 2)
