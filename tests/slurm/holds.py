"""Real training that is stopped at a step until it is told to go on, however fast the machine is.

Rank 0 stops itself; the others wait for it in their next step.
"""

import contextlib
import os
import re
import signal
from pathlib import Path

from neva_recipes.run_directory.state import read_state
from tests.slurm.clusters import PATIENCE
from tests.waiting import wait_for

HOLDING = Path(__file__).parent / "holding"


class Holds:
    """Where a run is held.

    Args:
        folder: A folder for this, whose path is plain words.
        steps: At which step which start of the worker is held.
    """

    def __init__(self, folder, steps):
        self._folder = folder
        folder.mkdir(parents=True)
        for start, step in steps.items():
            self.at(start, step)

    def words(self):
        """Return the words of a launch that is to be held."""
        return [f"executor.env.PYTHONPATH={HOLDING}", f"executor.env.HOLDS={self._folder}"]

    def at(self, start, step):
        """Hold a start of the worker when it comes to a step, or the next one if that is behind it."""
        (self._folder / str(start)).write_text(str(step))


def progress(run):
    """Return how often the worker has started to train, and the last step since."""
    starts, step = 0, 0
    for line in run.logs(rank=0):
        if line.startswith("training "):
            starts, step = starts + 1, 0
        elif found := re.match(r"step (\d+)/", line):
            step = int(found[1])
    return starts, step


def hold(run, start, step, patience=PATIENCE):
    """Wait until a start of a run is held at a step; hold all of its ranks there, and return them."""

    def is_held():
        assert not run.has_ended(), (run.status(), list(run.logs()))
        return progress(run) >= (start, step) and any(process_state(pid) == "T" for pid in ranks_of(run))

    wait_for(is_held, patience)
    pids = ranks_of(run)
    assert len(pids) == run.record()["world_size"], pids
    send(signal.SIGSTOP, pids)
    assert progress(run)[0] == start
    return pids


def ranks_of(run):
    """Return the processes of the ranks, which lead sessions of their own, and of none of their data loaders."""
    found = []
    for pid in processes("SLURM_JOB_ID", job_id(run)):
        with contextlib.suppress(OSError):
            is_worker = b"neva_model.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
            if is_worker and os.getsid(pid) == pid:
                found.append(pid)
    return found


def processes(variable, value):
    """Return the processes that have an environment variable with a value."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and f"{variable}={value}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def process_state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


def job_id(run):
    return read_state(run.path).supervisor["slurm_job_id"]


def send(number, pids):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def is_asked_to_stop(pid):
    """Return whether SIGUSR2 waits at a process."""
    pending = [
        int(line.split()[1], 16)
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith(("SigPnd", "ShdPnd"))
    ]
    return any(mask >> (signal.SIGUSR2 - 1) & 1 for mask in pending)
