"""What happens to training on a cluster that stops, loses, requeues, suspends and kills it.

Whatever goes on ends with the weights of the run that nobody disturbed; whatever ends says why, and leaves no process.
All runs train the same recipe with the real worker, several at a time.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import executors
from executors._state import read_state
from tests.end_to_end.world import World, nemo_run
from tests.slurm.conftest import running_cluster, wait_for
from tests.slurm.slurm_jobs import left_of
from tests.training._results import losses, tensors

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]

STEPS = 12
PATIENCE = 240.0
NODES, GPUS, KILL_WAIT = 8, 8, 60
USER_SIGNAL = "SlurmctldParameters=preempt_send_user_signal\n"
AT_ONCE = 4
"""Runs at the same time; each has two ranks."""


class Machinery:
    """The cluster and the runs on it.

    Attributes:
        cluster: Folder of the cluster.
        world: What is trained on.
    """

    def __init__(self, cluster: Path, world: World) -> None:
        self.cluster = cluster
        self.world = world
        self.starts = threading.Semaphore(AT_ONCE)
        """Whoever waits for Slurm to start a job holds one; a controller that has just been started loses such jobs."""

    def launch(self, name: str, *words: str, folder: Path | None = None) -> executors.Run:
        """Start a run of two ranks, on two nodes unless said otherwise."""
        recipe = self.world.tiny(
            trainer__max_steps=STEPS,
            trainer__num_nodes=2,
            trainer__devices=1,
            parallel__tensor_model_parallel_size=2,
            data__num_workers=1,
            checkpoint__every_n_train_steps=2,
            checkpoint__save_top_k=1,
        )
        executor = ["--executor", "slurm", "executor.cpus_per_task=1"]
        runs = folder or self.world.folder / "runs"
        with self.starts:
            nemo_run(
                *("llava.finetune", *recipe, *executor, *words),
                *("--name", name, "--runs-dir", runs, "--detach"),
                cwd=self.world.folder,
            )
            run = executors.find_run(name, runs)
            wait_for_start(run, 0)
        return run

    def resume(self, run: executors.Run) -> None:
        with self.starts:
            nemo_run("resume", run.path, "--detach", cwd=self.world.folder)
            wait_for_start(run, 0)

    def restart_controller(self, change) -> None:
        """Stop Slurm's controller, change its configuration, and start it again."""
        conf, pid_file = self.cluster / "slurm.conf", self.cluster / "run" / "slurmctld.pid"
        with contextlib.ExitStack() as stack:
            for _ in range(AT_ONCE):
                stack.enter_context(self.starts)
            pid = int(pid_file.read_text())
            os.kill(pid, signal.SIGTERM)
            wait_for(lambda: process_state(pid) in ("Z", None))
            conf.write_text(change(conf.read_text()))
            subprocess.run(["slurmctld"], check=True)
            # It knows the GPUs of a node once that has reported.
            job = ["sbatch", "--wait", "--nodes=2", "--nodelist=node[1-2]", "--gres=gpu:1", "--output=/dev/null"]
            wait_for(
                lambda: subprocess.run([*job, "--wrap=srun true"], capture_output=True, check=False).returncode == 0
            )


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def process_state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


def parent_of(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def wait_for_start(run, number):
    """Wait until the ranks of a job that was so often restarted are about to begin."""
    wait_for(lambda: read_state(run.path).supervisor.get("restart") == number or run.has_ended(), PATIENCE)
    assert read_state(run.path).supervisor.get("restart") == number, run.status()


def job_id(run):
    return read_state(run.path).supervisor["slurm_job_id"]


def processes(variable, value):
    """Return the processes that have an environment variable with a value."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and f"{variable}={value}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def ranks_of(run):
    """Return the processes of the ranks, which lead sessions of their own, and of none of their data loaders."""
    found = []
    for pid in processes("SLURM_JOB_ID", job_id(run)):
        with contextlib.suppress(OSError):
            is_worker = b"neva_model.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
            if is_worker and os.getsid(pid) == pid:
                found.append(pid)
    return found


def stopped_at(run):
    """Return the steps after which a run was requeued with its work saved."""
    requeues = json.loads((run.path / "slurm" / "requeues.json").read_text())
    return [int(entry["checkpoint"].removeprefix("step-")) for entry in requeues]


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


def progress(run):
    """Return how often the worker has started to train, and the last step since."""
    starts, step = 0, 0
    for line in run.logs(rank=0):
        if line.startswith("training "):
            starts, step = starts + 1, 0
        elif found := re.match(r"step (\d+)/", line):
            step = int(found[1])
    return starts, step


def hold(run, start, step):
    """Wait until a start of a run has come to a step; hold its ranks there, and return them."""

    def is_there():
        assert not run.has_ended(), (run.status(), list(run.logs()))
        return progress(run) >= (start, step)

    wait_for(is_there, PATIENCE)
    pids = ranks_of(run)
    assert len(pids) == 2, pids
    send(signal.SIGSTOP, pids)
    assert progress(run)[0] == start
    return pids


def resumed_at(run):
    """Return after which steps the starts of a run have gone on."""
    text = "\n".join(run.logs(rank=0))
    return [int(number) for number in re.findall(r"^resuming from .* after (\d+) steps$", text, re.MULTILINE)]


class Scenes:
    """What is done to runs; each returns what a test looks at."""

    def __init__(self, machinery: Machinery) -> None:
        self.machinery = machinery
        self.is_calm = threading.Event()
        """Set once no run depends on starting within a minute."""

    def undisturbed(self):
        run = self.machinery.launch("undisturbed", "executor.nodelist=node[1-2]")
        assert run.wait() == 0, run.status()
        return run

    def time_limit(self):
        """A minute is over in the middle of a step."""
        limits = ("executor.time=1", "executor.signal_delay_s=10")
        run = self.machinery.launch("time limit", "executor.nodelist=node[1-2]", *limits)
        # Slurm sends the signal up to half a minute early; a busy machine may need more than what is left to start.
        begun, minutes = time.monotonic(), 1
        while progress(run) < (1, 1):
            if time.monotonic() - begun > 60 * minutes - 45:
                slurm("scontrol", "update", f"JobId={job_id(run)}", "TimeLimit=+1")
                minutes += 1
            time.sleep(0.2)
        ranks = hold(run, 1, 3)
        self.is_calm.set()
        wait_for(lambda: all(map(is_asked_to_stop, ranks)), PATIENCE)
        with self.machinery.starts:
            send(signal.SIGCONT, ranks)
            wait_for(lambda: run.status().state == "queued", PATIENCE)
            # A busy machine may need longer than that for the next start.
            slurm("scontrol", "update", f"JobId={job_id(run)}", "TimeLimit=30")
            wait_for_start(run, 1)
        assert run.wait() == 0, run.status()
        return run

    def preempted(self):
        """Twice: with the signal that asks to save, and on a cluster that sends nothing but SIGTERM."""
        self.is_calm.wait(PATIENCE)
        run = self.machinery.launch("preempted", "executor.nodelist=node[3-4]", "executor.partition=low")
        for start in (1, 2):
            ranks = hold(run, start, 3 * start)
            if start == 2:
                self.machinery.restart_controller(lambda text: text.replace(USER_SIGNAL, ""))
                assert run.status().state == "running"
            sbatch = ("sbatch", "--parsable", "--partition=high", "--nodes=2", "--nodelist=node[3-4]", "--gres=gpu:8")
            urgent = slurm(*sbatch, "--output=/dev/null", "--wrap=sleep 600").strip()
            if start == 1:
                wait_for(lambda ranks=ranks: all(map(is_asked_to_stop, ranks)), PATIENCE)
                send(signal.SIGCONT, ranks)  # before a SIGTERM, Slurm sends it itself
            squeue = ("squeue", "--noheader", f"--jobs={urgent}", "--format=%T")
            wait_for(lambda squeue=squeue: "RUNNING" in slurm(*squeue), PATIENCE)
            assert run.status().state == "queued"
            with self.machinery.starts:
                slurm("scancel", urgent)
                wait_for_start(run, start)
        assert run.wait() == 0, run.status()
        return run

    def dead_node(self):
        """A machine goes with all that runs on it,."""
        self.is_calm.wait(PATIENCE)
        run = self.machinery.launch("dead node", "executor.nodelist=node[5-6]")
        ranks = hold(run, 1, 3)
        with self.machinery.starts:
            with self.dead_daemon("node6"):
                victims = processes("SLURMD_NODENAME", "node6")
                send(signal.SIGKILL, {parent_of(pid) for pid in victims}.difference(victims) - {0, 1})
                send(signal.SIGKILL, victims)
                send(signal.SIGCONT, ranks)
                wait_for(lambda: run.status().state == "queued", PATIENCE)
            wait_for_start(run, 1)
        assert run.wait() == 0, run.status()
        return run

    def lost_node(self):
        """A daemon dies, and Slurm gives up its node, on which the ranks live on."""
        self.is_calm.wait(PATIENCE)
        one_node = ("trainer.num_nodes=1", "trainer.devices=2", "executor.exclude=node[1-6]")
        run = self.machinery.launch("lost node", *one_node)
        ranks = hold(run, 1, 3)
        node = read_state(run.path).supervisor["nodes"]
        with self.machinery.starts, self.dead_daemon(node):
            wait_for_start(run, 1)
            # Nobody but their own tasks can end them.
            wait_for(lambda: all(process_state(pid) in ("Z", None) for pid in ranks))
            assert progress(run)[0] == 1
        assert run.wait() == 0, run.status()
        return run

    @contextlib.contextmanager
    def dead_daemon(self, node):
        """Kill a node's daemon, and start it again afterwards."""
        os.kill(int((self.machinery.cluster / "run" / f"slurmd.{node}.pid").read_text()), signal.SIGKILL)
        try:
            yield
        finally:
            subprocess.run(["slurmd", "-N", node], check=True)

    def killed_and_cancelled(self):
        """A rank is killed; the run is resumed, and cancelled by somebody else; it is resumed again."""
        self.is_calm.wait(PATIENCE)
        run = self.machinery.launch("killed", "executor.nodelist=node[1-2]")
        ranks = hold(run, 1, 3)
        send(signal.SIGKILL, ranks[1:])
        send(signal.SIGCONT, ranks)
        run.wait()
        killed = run.status()
        check_nothing_is_left(run)
        self.machinery.resume(run)
        ranks = hold(run, 2, 5)
        slurm("scancel", job_id(run))
        run.wait()
        cancelled = run.status()
        check_no_process_is_left(run)
        self.machinery.resume(run)
        assert run.wait() == 0, run.status()
        return run, killed, cancelled

    def full_disk(self):
        """The disk has room for one checkpoint; then for all, until somebody else fills it to the last byte."""
        self.is_calm.wait(PATIENCE)
        disk = self.machinery.cluster / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", disk], check=True)
        run = self.machinery.launch("full disk", "executor.nodelist=node[1-2]", folder=disk)
        run.wait()
        too_small = run.status()
        check_nothing_is_left(run)
        assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["step-00000002"]
        subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
        self.machinery.resume(run)
        ranks = hold(run, 2, 3)
        fill(disk / "of somebody else")
        send(signal.SIGCONT, ranks)
        run.wait()
        filled = run.status()
        check_nothing_is_left(run)
        (disk / "of somebody else").unlink()
        self.machinery.resume(run)
        assert run.wait() == 0, run.status()
        return run, too_small, filled

    def administrated(self):
        """An administrator suspends the job, requeues it, and requeues it to be held."""
        self.is_calm.wait(PATIENCE)
        run = self.machinery.launch("administrated", "executor.nodelist=node[1-2]")
        ranks = hold(run, 1, 3)
        slurm("scontrol", "suspend", job_id(run))
        wait_for(lambda: run.status().reason)
        suspended = run.status()
        slurm("scontrol", "resume", job_id(run))
        wait_for(lambda: not run.status().reason)
        send(signal.SIGCONT, ranks)
        hold(run, 1, 4)
        with self.machinery.starts:
            slurm("scontrol", "requeue", job_id(run))
            wait_for_start(run, 1)
        hold(run, 2, 6)
        slurm("scontrol", "requeuehold", job_id(run))
        wait_for(lambda: "held" in (run.status().reason or ""), PATIENCE)
        held = run.status()
        check_no_process_is_left(run)
        with self.machinery.starts:
            slurm("scontrol", "release", job_id(run))
            wait_for_start(run, 2)
        assert run.wait() == 0, run.status()
        return run, suspended, held


def fill(path):
    """Write to a file until its disk takes no more."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))


def check_no_process_is_left(run):
    wait_for(lambda: not left_of(run) and not processes("SLURM_JOB_ID", job_id(run)))


def check_nothing_is_left(run):
    """Check that no process and nothing half-written of a run is left."""
    check_no_process_is_left(run)
    assert not [*run.path.rglob(".incomplete-*"), *run.path.glob(".*.new")]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory, world):
    """All scenes, which play side by side; each is a function that waits for the end of one."""
    with (
        pytest.MonkeyPatch.context() as patch,
        running_cluster(tmp_path_factory.mktemp("faults"), NODES, GPUS, KILL_WAIT) as cluster,
    ):
        patch.setenv("SLURM_CONF", str(cluster / "slurm.conf"))
        played = Scenes(Machinery(cluster, world))
        names = ("time_limit", "undisturbed", "lost_node", "dead_node", "preempted", "killed_and_cancelled")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            ends = {name: pool.submit(getattr(played, name)) for name in (*names, "administrated", "full_disk")}
            yield lambda name: ends[name].result()
        subprocess.run(["umount", "--lazy", cluster / "disk"], check=False)


@pytest.fixture(scope="module")
def check_same(scenes):
    """Check that a run has ended as the one that nobody disturbed."""
    undisturbed = scenes("undisturbed")
    expected = tensors(undisturbed.newest_checkpoint())

    def check(run):
        assert run.status().state == "succeeded"
        found = tensors(run.newest_checkpoint())
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            assert tensor.equal(found[name]), name
        assert losses(run.path) == losses(undisturbed.path)
        check_nothing_is_left(run)

    return check


def test_a_time_limit_of_one_minute(scenes, check_same):
    run = scenes("time_limit")
    check_same(run)
    assert len(stopped_at(run)) == 1
    assert resumed_at(run) == stopped_at(run)


def test_preempted_with_the_signal_and_without(scenes, check_same):
    run = scenes("preempted")
    check_same(run)
    assert len(stopped_at(run)) == 2
    assert resumed_at(run) == stopped_at(run)


def test_a_node_that_dies_with_its_ranks(scenes, check_same):
    run = scenes("dead_node")
    check_same(run)
    assert resumed_at(run) == [2]


def test_a_node_that_is_given_up_and_lives(scenes, check_same):
    run = scenes("lost_node")
    check_same(run)
    assert resumed_at(run) == [2]


def test_a_rank_that_is_killed_and_a_job_that_is_cancelled(scenes, check_same):
    run, killed, cancelled = scenes("killed_and_cancelled")
    assert (killed.state, killed.exit_code) == ("failed", 137)
    assert re.fullmatch(r"rank [01] was killed by signal 9 \(SIGKILL: out of memory\?\)", killed.reason)
    assert (cancelled.state, cancelled.exit_code) == ("cancelled", 130)
    assert cancelled.reason == "the Slurm job was cancelled"
    check_same(run)
    # A rank that is killed saves nothing; one that is cancelled has the time to.
    first, second = resumed_at(run)
    assert first == 2
    assert second >= 5


def test_a_full_disk(scenes, check_same):
    run, too_small, filled = scenes("full_disk")
    assert (too_small.state, too_small.exit_code) == ("failed", 2)
    assert "the disk is full" in too_small.reason and "earlier checkpoints are untouched" in too_small.reason
    # A rank could not even say that it has failed by itself, so it may be taken for one that was ended with the other.
    assert filled.state == "failed" and filled.exit_code in (1, 2)
    assert "the disk is full" in filled.reason
    check_same(run)


def test_an_administrator(scenes, check_same):
    run, suspended, held = scenes("administrated")
    assert (suspended.state, suspended.reason) == ("running", f"Slurm job {job_id(run)} is suspended")
    assert (held.state, held.exit_code) == ("queued", None)
    check_same(run)
    assert len(resumed_at(run)) == 2
