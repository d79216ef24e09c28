"""An executor whose place is a folder: files in it say what a cluster would say, and a test writes them."""

import json
import os
import sys
import textwrap
from pathlib import Path

import executor_jobs

import executors
from neva_recipes.config import RunError

MODULE = '''
    import dataclasses, json
    from dataclasses import dataclass
    from pathlib import Path
    from executors.base import Executor
    from neva_recipes.run_directory.state import State, read_state, write_state

    @dataclass(frozen=True, kw_only=True)
    class PlaceExecutor(Executor):
        kind = "place"

        folder: str
        """Where the place is."""

        def check(self, layout):
            pass

        def job_environment(self, layout):
            return self.env

        def script(self, job):
            return "true"

        def start(self, job, *, lock, lifeline):
            state = read_state(job.run_dir)
            supervisor = {"folder": self.folder}
            write_state(job.run_dir, dataclasses.replace(state, state="queued", supervisor=supervisor))

        @classmethod
        def is_alive(cls, supervisor):
            with (Path(supervisor["folder"]) / "asked").open("a") as file:
                file.write("x")
            return json.loads((Path(supervisor["folder"]) / "alive.json").read_text())

        @classmethod
        def outcome(cls, run_dir, supervisor):
            path = Path(supervisor["folder"]) / "outcome.json"
            return State(**json.loads(path.read_text())) if path.exists() else None

        @classmethod
        def request_cancel(cls, run_dir, supervisor, *, force):
            folder = Path(supervisor["folder"])
            reason = "killed" if force else "cancelled"
            (folder / "outcome.json").write_text(json.dumps({"state": "cancelled", "reason": reason}))
            (folder / "alive.json").write_text("false")
'''


class Place:
    """The folder, from the other side."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self.set_alive(True)

    @property
    def executor(self):
        return executors.find_executor("place", {"folder": str(self.folder)})

    def set_alive(self, alive):
        write(self.folder / "alive.json", json.dumps(alive))

    def tell(self, state, **values):
        """Set what the place says of its runs."""
        write(self.folder / "outcome.json", json.dumps({"state": state, **values}))

    def times_asked(self):
        return len((self.folder / "asked").read_text()) if (self.folder / "asked").exists() else 0


def write(path, text):
    """Write a file that others read at any moment."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_text(text)
    unfinished.replace(path)


def install(folder):
    """Install the package of the executor into a folder for modules."""
    information = folder / "place-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: place\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[neva_recipes.executors]\nplace = place:PlaceExecutor\n")
    (folder / "place.py").write_text(textwrap.dedent(MODULE))


def make_job(place, runs_dir, name=None, world_size=1):
    """Return a job for the place."""
    recipe = executor_jobs.make_recipe(world_size)
    return executors.plan_job(recipe, place.executor, name=name, runs_dir=runs_dir)


def _launch_forever(folder, runs_dir):
    """Start one run after the other, until somebody kills this process."""
    executor = executors.find_executor("place", {"folder": folder})
    recipe = executor_jobs.make_recipe()
    while True:
        executors.run(recipe, executor, runs_dir=runs_dir, detach=True)


def _resume_forever(path):
    """Resume one run with one changed recipe after the other, whoever else does so, until this process is killed."""
    run, number = executors.Run(Path(path)), 0
    while True:
        number += 1
        recipe = executor_jobs.make_recipe()
        recipe.optim.lr = 1e-6 * (os.getpid() * 1000 + number)
        try:
            run.resume(recipe, detach=True)
        except RunError:  # another one does so
            continue


if __name__ == "__main__":
    {"launch": _launch_forever, "resume": _resume_forever}[sys.argv[1]](*sys.argv[2:])
