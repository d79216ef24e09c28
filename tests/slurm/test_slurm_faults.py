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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import executors
from executors.slurm.cluster import minutes_of
from neva_recipes.run_directory.state import read_state
from tests.end_to_end.world import World, nemo_run
from tests.slurm.clusters import PATIENCE, running_cluster
from tests.slurm.holds import Holds, hold, is_asked_to_stop, job_id, process_state, processes, progress, send
from tests.slurm.slurm_jobs import left_of
from tests.training._results import losses, tensors
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]

STEPS = 12
NODES, GPUS = 8, 8
SETTINGS = {"KILL_WAIT": 60, "SLURMD_TIMEOUT": 20, "MESSAGE_TIMEOUT": 10}
USER_SIGNAL = "SlurmctldParameters=preempt_send_user_signal\n"
AT_ONCE = 4
"""Runs at the same time; each has two ranks."""


class Machinery:
    """The cluster and the runs on it.

    Attributes:
        cluster: Folder of the cluster.
        world: What is trained on.
        holds: Where runs are held, by their directories.
    """

    def __init__(self, cluster: Path, world: World) -> None:
        self.cluster = cluster
        self.world = world
        self.holds: dict[Path, Holds] = {}
        self.starts = threading.Semaphore(AT_ONCE)
        """Whoever waits for Slurm to start a job holds one; a controller that has just been started loses such jobs."""

    def launch(
        self, name: str, *words: str, held: dict[int, int] | None = None, folder: Path | None = None
    ) -> executors.Run:
        """Start a run of two ranks, on two nodes unless said otherwise; some starts of it are held at a step."""
        holds = Holds(self.cluster / "holds" / name.replace(" ", "-"), held or {})
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
                *("llava.finetune", *recipe, *executor, *holds.words(), *words),
                *("--name", name, "--runs-dir", runs, "--detach"),
                cwd=self.world.folder,
                patience=PATIENCE,
            )
            run = executors.find_run(name, runs)
            self.holds[run.path] = holds
            wait_for_start(run, 0)
        return run

    def resume(self, run: executors.Run) -> None:
        with self.starts:
            nemo_run("resume", run.path, "--detach", cwd=self.world.folder, patience=PATIENCE)
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
    """Return what a command of Slurm prints; while a scene restarts the controller, wait for that."""

    def done():
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        is_away = "Unable to contact slurm controller" in ended.stderr
        assert is_away or ended.returncode == 0, ended.stderr
        return None if is_away else ended

    return wait_for(done).stdout


def parent_of(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def wait_for_start(run, number):
    """Wait until the ranks of a job that was so often restarted are about to begin."""
    wait_for(lambda: read_state(run.path).supervisor.get("restart") == number or run.has_ended())
    assert read_state(run.path).supervisor.get("restart") == number, run.status()


def stopped_at(run):
    """Return the steps after which a run was requeued with its work saved."""
    requeues = json.loads((run.path / "slurm" / "requeues.json").read_text())
    return [int(entry["checkpoint"].removeprefix("step-")) for entry in requeues]


def resumed_at(run):
    """Return after which steps the starts of a run have gone on."""
    text = "\n".join(run.logs(rank=0))
    return [int(number) for number in re.findall(r"^resuming from .* after (\d+) steps$", text, re.MULTILINE)]


class Scenes:
    """What is done to runs; each returns what a test looks at."""

    def __init__(self, machinery: Machinery) -> None:
        self.machinery = machinery

    def undisturbed(self):
        run = self.machinery.launch("undisturbed", "executor.nodelist=node[1-2]")
        assert run.wait() == 0, run.status()
        return run

    def time_limit(self):
        """The time is over in the middle of a step."""
        limits = ("executor.time=60", "executor.signal_delay_s=90")
        run = self.machinery.launch("time limit", "executor.nodelist=node[1-2]", *limits, held={1: 3})
        ranks = hold(run, 1, 3)
        ran = minutes_of(slurm("squeue", "--noheader", f"--jobs={job_id(run)}", "--format=%M").strip())
        self.limit(run, ran + 2)  # a minute at least is left once the signal has come
        wait_for(lambda: all(map(is_asked_to_stop, ranks)))
        self.limit(run, 60)  # however long it takes to save, or until a start is allowed
        with self.machinery.starts:
            send(signal.SIGCONT, ranks)
            wait_for_start(run, 1)
        assert run.wait() == 0, run.status()
        return run

    def limit(self, run, minutes):
        slurm("scontrol", "update", f"JobId={job_id(run)}", f"TimeLimit={minutes}")

    def preempted(self):
        """Twice: with the signal that asks to save, and on a cluster that sends nothing but SIGTERM."""
        run = self.machinery.launch(
            "preempted", "executor.nodelist=node[3-4]", "executor.partition=low", held={1: 3, 2: 6}
        )
        for start in (1, 2):
            ranks = hold(run, start, 3 * start)
            if start == 2:
                self.machinery.restart_controller(lambda text: text.replace(USER_SIGNAL, ""))
                assert run.status().state == "running"
            sbatch = ("sbatch", "--parsable", "--partition=high", "--nodes=2", "--nodelist=node[3-4]", "--gres=gpu:8")
            urgent = slurm(*sbatch, "--output=/dev/null", "--wrap=sleep 600").strip()
            if start == 1:
                wait_for(lambda ranks=ranks: all(map(is_asked_to_stop, ranks)))
                send(signal.SIGCONT, ranks)  # before a SIGTERM, Slurm sends it itself
            squeue = ("squeue", "--noheader", f"--jobs={urgent}", "--format=%T")
            wait_for(lambda squeue=squeue: "RUNNING" in slurm(*squeue))
            assert run.status().state == "queued"
            with self.machinery.starts:
                slurm("scancel", urgent)
                wait_for_start(run, start)
        assert run.wait() == 0, run.status()
        return run

    def dead_node(self):
        """A machine goes with all that runs on it."""
        run = self.machinery.launch("dead node", "executor.nodelist=node[5-6]", held={1: 3})
        ranks = hold(run, 1, 3)
        with self.machinery.starts:
            with self.dead_daemon("node6"):
                victims = processes("SLURMD_NODENAME", "node6")
                send(signal.SIGKILL, {parent_of(pid) for pid in victims}.difference(victims) - {0, 1})
                send(signal.SIGKILL, victims)
                send(signal.SIGCONT, ranks)
                wait_for(lambda: run.status().state == "queued")
            wait_for_start(run, 1)
        assert run.wait() == 0, run.status()
        return run

    def lost_node(self):
        """A daemon dies, and Slurm gives up its node, on which the ranks live on."""
        one_node = ("trainer.num_nodes=1", "trainer.devices=2", "executor.exclude=node[1-6]")
        run = self.machinery.launch("lost node", *one_node, held={1: 3})
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
        run = self.machinery.launch("killed", "executor.nodelist=node[1-2]", held={1: 3, 2: 5})
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
        disk = self.machinery.cluster / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", disk], check=True)
        run = self.machinery.launch("full disk", "executor.nodelist=node[1-2]", held={2: 3}, folder=disk)
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
        run = self.machinery.launch("administrated", "executor.nodelist=node[1-2]", held={1: 3, 2: 6})
        hold(run, 1, 3)
        slurm("scontrol", "suspend", job_id(run))
        wait_for(lambda: run.status().reason)
        suspended = run.status()
        self.machinery.holds[run.path].at(1, 4)
        slurm("scontrol", "resume", job_id(run))  # which sends SIGCONT
        hold(run, 1, 4)
        wait_for(lambda: not run.status().reason)
        with self.machinery.starts:
            slurm("scontrol", "requeue", job_id(run))
            wait_for_start(run, 1)
        hold(run, 2, 6)
        slurm("scontrol", "requeuehold", job_id(run))
        wait_for(lambda: "held" in (run.status().reason or ""))
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
        running_cluster(tmp_path_factory.mktemp("faults"), NODES, GPUS, **SETTINGS) as cluster,
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


def test_a_time_limit(scenes, check_same):
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
    # Slurm may hand to the next start what it had for the dead node: the SIGTERM to its tasks.
    assert resumed_at(run)[0] == 2


def test_a_node_that_is_given_up_and_lives(scenes, check_same):
    run = scenes("lost_node")
    check_same(run)
    assert resumed_at(run)[0] == 2


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
