"""Programs and jobs for a Python that has NeMo-Run."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import executors

DRIVER = Path(__file__).with_name("driver.py")
PATIENCE = 600.0
NEMO_RUN = "import sys; from neva_recipes.cli.main import main; sys.exit(main())"

# What every rank of these tests starts with.
PREAMBLE = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
rank, run_dir = int(os.environ["RANK"]), Path(sys.argv[-1])
"""


class Nemo:
    """A Python that has NeMo-Run.

    Args:
        prefix: Its virtual environment.
    """

    def __init__(self, prefix):
        self.prefix = prefix
        self.bin = Path(prefix) / "bin"
        self.python = self.bin / "python"

    @property
    def path(self):
        """PATH with its programs, and with torchrun, which lies beside the Python that has torch."""
        return os.pathsep.join([str(self.bin), os.environ["PATH"], str(Path(sys.executable).parent)])

    def run(self, *command, cwd, code=0, **environ):
        """Run a command of that environment in a folder and check its exit code."""
        home = str(cwd / "nemo-run home")
        fixed = {
            "PATH": self.path,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "NEMORUN_HOME": home,
            "COLUMNS": "80",
        }
        done = subprocess.run(
            [str(word) for word in command],
            cwd=cwd,
            env={**os.environ, **fixed, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE,
        )
        assert done.returncode == code, f"exit code {done.returncode}, expected {code}\n{done.stdout}\n{done.stderr}"
        return done

    def nemo_run(self, *arguments, cwd, code=0):
        """Run our command."""
        return self.run(self.python, "-P", "-c", NEMO_RUN, *arguments, cwd=cwd, code=code)

    def nemorun(self, *arguments, cwd, code=0, **environ):
        """Run NeMo-Run's command."""
        return self.run(self.bin / "nemorun", *arguments, cwd=cwd, code=code, **environ)

    def drive(self, task, *, cwd, environ=None, **arguments):
        """Run a function of driver.py and return its result."""
        root = str(Path(__file__).parent.parent.parent)
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        done = self.run(
            self.python, "-P", DRIVER, task, json.dumps(arguments), cwd=cwd, PYTHONPATH=path, **(environ or {})
        )
        return json.loads(done.stdout.splitlines()[-1])

    def start(self, body, *, cwd, size=2, **fields):
        """Start a job whose ranks run a few lines of Python, and return its run."""
        (run,) = self.start_all(body, [{"size": size, "fields": fields}], cwd=cwd)
        return run

    def start_all(self, body, cases, *, cwd):
        """Start jobs of that kind, each with arguments of the driver's `start`, and return their runs."""
        script = cwd / "rank.py"
        script.write_text(PREAMBLE + textwrap.dedent(body), encoding="utf-8")
        paths = self.drive("start_all", cwd=cwd, script=str(script), cases=cases, runs_dir=str(cwd / "runs"))
        return [executors.find_run(path) for path in paths]


def contents(folder):
    """Return all that the files below a folder hold."""
    return b"\0".join(path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
