"""An engine and jobs in it whose ranks are small Python scripts."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import executors
from executors.docker.executor import DockerExecutor
from tests.executors.executor_jobs import make_recipe
from tests.waiting import wait_for

SCRIPTS = Path(__file__).parent.parent / "testbed" / "docker"
PATIENCE = 120.0

PREAMBLE = """
import hashlib, json, os, signal, sys, time
from pathlib import Path
rank, run_dir = int(os.environ["RANK"]), Path(sys.argv[-1])
def wait(name):
    while not (run_dir / name).exists():
        time.sleep(0.01)
"""


class Engine:
    """A Docker engine of our own, which finds the programs of a folder first."""

    def __init__(self, folder: Path, programs: Path = Path("/usr/sbin")) -> None:
        self.folder = folder
        self.address = f"unix://{folder}/docker.sock"
        self._programs = programs

    def start(self) -> None:
        env = {**os.environ, "PATH": f"{self._programs}:{os.environ['PATH']}"}
        subprocess.run([SCRIPTS / "start.sh", self.folder], check=True, timeout=300, stdout=subprocess.DEVNULL, env=env)

    def stop(self) -> None:
        subprocess.run([SCRIPTS / "stop.sh", self.folder], check=True, timeout=300)

    def kill(self) -> None:
        """Kill the engine and its helper at once, and leave containers to themselves."""
        for name in ("dockerd.pid", "exec/containerd/containerd.pid"):
            path = self.folder / name
            if path.exists():
                pid = int(path.read_text())
                os.kill(pid, signal.SIGKILL)
                wait_for(lambda pid=pid: _is_gone(pid))

    def command(self, *arguments: str) -> str:
        """Return what the docker command prints."""
        done = subprocess.run(
            ["docker", "--host", self.address, *arguments], check=True, timeout=PATIENCE, capture_output=True, text=True
        )
        return done.stdout

    def containers(self) -> list[str]:
        """Return the names of all containers, ended ones too."""
        return self.command("ps", "--all", "--format", "{{.Names}}").split()

    def inspect(self, name: str) -> dict:
        """Return what anybody who may ask the engine is told of a container."""
        return json.loads(self.command("inspect", name))[0]

    def exit_codes(self, since: float) -> list[tuple[str, int]]:
        """Return name and exit code of each container that has ended since then, as the engine has noted them."""
        lines = self.command(
            "events", f"--since={since:.3f}", f"--until={time.time():.3f}", "--filter=event=die", "--format={{json .}}"
        )
        events = [json.loads(line)["Actor"]["Attributes"] for line in lines.splitlines()]
        return [(event["name"], int(event["exitCode"])) for event in events]


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class Place:
    """Makes executors and jobs for an engine."""

    IMAGE = "neva-test:local"

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        self.runs_dir = folder / "runs"

    def executor(self, **fields) -> DockerExecutor:
        """Return an executor that takes the code from here, for user 1000, without a network."""
        settings = {"image": self.IMAGE, "mount_code": True, "user": "1000:1000", "network": "none"}
        return DockerExecutor(**{**settings, **fields})

    def job(self, body: str, *, size=1, arguments=(), name=None, **fields) -> executors.Job:
        """Return a job whose ranks run a few lines of Python, after those of `PREAMBLE`."""
        recipe = make_recipe(size, accelerator="cpu")
        job = executors.plan_job(recipe, self.executor(**fields), name=name, runs_dir=self.runs_dir)
        code = PREAMBLE + textwrap.dedent(body)
        return dataclasses.replace(job, argv=(sys.executable, "-P", "-c", code, *arguments))

    def start(self, body: str, **fields) -> executors.Run:
        """Start such a job and return at once."""
        return executors.start_job(self.job(body, **fields), detach=True)

    def container(self, run: executors.Run) -> str:
        """Return the name of a run's container."""
        return json.loads((run.path / "state.json").read_text())["supervisor"]["container"]


def contents(folder: Path) -> bytes:
    """Return all that the files below a folder hold."""
    found = []
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            with contextlib.suppress(FileNotFoundError):  # the engine has just removed it
                if path.is_file() and not path.is_symlink():
                    found.append(path.read_bytes())
    return b"\0".join(found)


def owners(folder: Path) -> set[tuple[int, int]]:
    """Return user and group of everything below a folder, itself included."""
    found = [path.lstat() for path in (folder, *folder.rglob("*"))]
    return {(status.st_uid, status.st_gid) for status in found}


def watchers(run: executors.Run) -> list[int]:
    """Return the processes that hold a run's lock file open here, outside of its container."""
    lock = str(run.path / ".lock")
    found = []
    for entry in Path("/proc").iterdir():
        try:
            links = [str(link.readlink()) for link in (entry / "fd").iterdir()] if entry.name.isdigit() else []
        except OSError:
            continue
        if lock in links and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found
