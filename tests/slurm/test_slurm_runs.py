"""Runs on a real cluster: started, watched, cancelled and killed from outside."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import executors
from neva_recipes.run_directory.state import read_state
from tests.slurm.slurm_jobs import left_of, make_job, start
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]

SECRET = "hf_" + "abcdefghijklmnopqrstuvwxyzABCDEFGH"
FOREVER = """
print("up", flush=True)
(run_dir / f"up-{rank}").write_text(str(os.getpid()))
time.sleep(600)
"""


def test_ranks_know_their_places_and_what_they_print_is_kept(cluster, script, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "a secret of the shell")
    body = """
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
    found = {name: os.environ[name] for name in (*names, "HF_TOKEN", "WANDB_API_KEY", "PLAIN", "CUDA_VISIBLE_DEVICES")}
    (run_dir / f"found-{rank}.json").write_text(json.dumps({**found, "cwd": os.getcwd(), "argv": sys.argv[1:-1]}))
    print(os.environ["HF_TOKEN"], os.environ["WANDB_API_KEY"], flush=True)
    print("x" * 5000 + str(rank))
    """
    hostile = 'it\'s "a" $(touch canary) `touch canary`; \\ 日本 \n#SBATCH --nodes=9'
    env = {"HF_TOKEN": SECRET, "PLAIN": hostile}
    monkeypatch.chdir(tmp_path)
    argv = ("--leading", hostile, "")
    job = make_job(script(body), tmp_path / "r", 2, 2, env=env, arguments=argv, cpus_per_task=2, comment="a $(b) #c")
    run = executors.start_job(job, detach=True)
    assert run.wait() == 0
    assert run.status().state == "succeeded"
    found = [json.loads((run.path / f"found-{rank}.json").read_text()) for rank in range(4)]
    for rank, variables in enumerate(found):
        expected = {
            "RANK": rank,
            "LOCAL_RANK": rank % 2,
            "NODE_RANK": rank // 2,
            "WORLD_SIZE": 4,
            "LOCAL_WORLD_SIZE": 2,
        }
        assert {name: variables[name] for name in expected} == {name: str(value) for name, value in expected.items()}
        assert (variables["HF_TOKEN"], variables["PLAIN"]) == (SECRET, hostile)
        assert variables["WANDB_API_KEY"] == "a secret of the shell"
        assert (variables["cwd"], variables["argv"]) == (str(tmp_path), list(argv))
        assert variables["CUDA_VISIBLE_DEVICES"] == "0,1"
        assert list(run.logs(rank=rank)) == ["*** ***", "x" * 5000 + str(rank)]
    assert len({(variables["MASTER_ADDR"], variables["MASTER_PORT"]) for variables in found}) == 1
    lines = list(run.logs())
    for rank in range(4):
        own = [line for line in lines if line.startswith(f"[{rank}] ")]
        assert own[0] == f"[{rank}] *** ***"
        assert "".join(line[4:] for line in own[1:]) == "x" * 5000 + str(rank)
    assert len(lines) == len([line for line in lines if line.startswith("[")])
    assert not list(tmp_path.rglob("canary"))
    for path in run.path.rglob("*"):
        if path.is_file() and not path.name.startswith("found-"):
            content = path.read_bytes()
            assert SECRET.encode() not in content and b"a secret of the shell" not in content, path
    # What was submitted is what the script of the run shows.
    (submitted,) = run.path.glob("slurm/*_submission.sh")
    assert submitted.read_text() in (run.path / "launch.sh").read_text()
    if shutil.which("shellcheck") is not None:
        assert subprocess.run(["shellcheck", "--severity=warning", submitted], check=False).returncode == 0


def test_cancelled_while_it_runs_and_while_it_waits(cluster, script, tmp_path):
    running = start(script(FOREVER), tmp_path, 2, 1, exclusive=True)
    wait_for(lambda: (running.path / "up-0").exists() and (running.path / "up-1").exists())
    waiting = start(script(FOREVER), tmp_path, 2, 1, exclusive=True, name="later")
    wait_for(lambda: "Resources" in (waiting.status().reason or "") or "Priority" in (waiting.status().reason or ""))
    assert waiting.status().state == "queued"
    assert (running.status().state, running.status().exit_code) == ("running", None)
    numbers = [read_state(run.path).supervisor["slurm_job_id"] for run in (waiting, running)]
    assert waiting.place() == f"Slurm job {numbers[0]}"
    assert re.fullmatch(rf"Slurm job {numbers[1]} on node.*", running.place())
    # From other processes, which know nothing but the run directory.
    for run in (waiting, running):
        done = subprocess.run(
            [Path(sys.executable).with_name("nemo-run"), "cancel", run.path],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        status = run.status()
        assert (status.state, status.exit_code) == ("cancelled", 130)
        wait_for(lambda run=run: not left_of(run))
        assert '"cancelled"' in (run.path / "state.json").read_text()


def test_cancel_by_force_and_by_scancel(cluster, script, tmp_path):
    deaf = "signal.signal(signal.SIGUSR2, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FOREVER
    run = start(script(deaf), tmp_path, 2, 1)
    wait_for(lambda: (run.path / "up-1").exists())
    run.cancel(force=True)
    assert (run.status().state, run.status().exit_code) == ("cancelled", 130)
    wait_for(lambda: not left_of(run))
    run = start(script(FOREVER), tmp_path, 2, 1)
    wait_for(lambda: (run.path / "up-1").exists())
    job_id = read_state(run.path).supervisor["slurm_job_id"]
    subprocess.run(["scancel", job_id], check=True)
    assert run.wait() == 130
    assert run.status().state == "cancelled"


def test_goes_on_when_nobody_reads_what_it_prints(cluster, script, tmp_path):
    program = "import sys, executors; from tests.slurm.slurm_jobs import make_job; "
    program += "executors.start_job(make_job(*sys.argv[1:]))"
    body = "while True: print('again', flush=True); time.sleep(0.1)"
    command = [sys.executable, "-c", program, str(script(body)), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout.readline() == "again\n"
        launcher.stdout.close()
        said = [line for line in launcher.stderr if line.startswith("run ")]
    (run,) = executors.list_runs(tmp_path)
    assert said[-1] == f"run {run.name} goes on: nobody reads what it prints any more\n"
    assert run.status().state == "running"
    run.cancel()


@pytest.mark.parametrize(
    ("end", "code", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, "rank 1 was killed by signal 9 (SIGKILL: out of memory?)"),
        ("sys.exit(7)", 7, "rank 1 exited with code 7"),
        (
            "(run_dir / 'failure.json').write_text(json.dumps({'rank': 1, 'kind': 'user', 'message': 'no such file'}));"
            "sys.exit(2)",
            2,
            "no such file",
        ),
        ("os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)", 137, "task 1: Killed"),
    ],
)
def test_a_rank_ends(cluster, script, tmp_path, end, code, reason):
    body = f"""
    if rank == 1:
        wait("up-0")
        {end}
    (run_dir / f"up-{{rank}}").touch()
    time.sleep(600)
    """
    run = start(script(body), tmp_path, 2, 1)
    assert run.wait() == code
    assert run.status().state == "failed"
    assert reason in run.status().reason
    wait_for(lambda: not left_of(run))


def test_setup_that_fails(cluster, script, tmp_path):
    run = start(script(FOREVER), tmp_path, setup=["echo no such module >&2; exit 3"])
    assert run.wait() == 2
    assert run.status().reason == (
        "executor.setup: 'echo no such module >&2; exit 3' failed with exit code 3; if that does not matter, append "
        "`|| true`"
    )
