"""Runs from start to end: what ranks are given, what is written, how each kind of end is reported."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import executor_jobs
import pytest
from executor_jobs import GRANDCHILDREN, make_job, make_recipe

import executors
from executors import LocalExecutor
from executors.process import linux
from neva_recipes.config import RecipeError, RunError, UserError, load_recipe, recipe_to_yaml
from neva_recipes.run_directory.lock import acquire_lock
from neva_recipes.run_directory.state import read_state

pytestmark = pytest.mark.multiprocess

REPORT = """
facts = {
    "env": dict(os.environ),
    "argv": sys.argv,
    "cwd": os.getcwd(),
    "session": os.getsid(0) == os.getpid(),
    "stdin": os.readlink("/proc/self/fd/0"),
    "terminal": Path("/proc/self/stat").read_text().rsplit(")")[1].split()[4],
    "descriptors": len(os.listdir("/proc/self/fd")),
}
(run_dir / f"facts-{rank}.json").write_text(json.dumps(facts))
"""


def facts(run, rank=0):
    return json.loads((run.path / f"facts-{rank}.json").read_text())


def test_successful_run_in_the_foreground(script, runs_dir, capfd, monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "17")
    monkeypatch.setenv("CALLERS_OWN", "not to be written")
    monkeypatch.chdir(tmp_path)
    path = script(REPORT + "print('out', rank); print('err', rank, file=sys.stderr); print('no end', end='')")
    job = make_job(path, "runs", 2, env={"NCCL_DEBUG": "WARN"})
    assert not runs_dir.exists(), "planning a job writes nothing"

    run = executors.start_job(job)

    status = run.status()
    assert (status.state, status.exit_code, status.reason) == ("succeeded", 0, None)
    assert status.started < status.ended
    assert run.path == job.run_dir and run.path.parent == runs_dir

    got = [facts(run, rank) for rank in range(2)]
    for rank, fact in enumerate(got):
        env = fact["env"]
        expected = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "NODE_RANK": 0}
        assert {name: env[name] for name in expected} == {name: str(value) for name, value in expected.items()}
        assert env["MASTER_ADDR"] == "127.0.0.1"
        assert env["NCCL_DEBUG"] == "WARN" and env["CALLERS_OWN"] == "not to be written"
        assert env["OMP_NUM_THREADS"] == str(max(1, len(os.sched_getaffinity(0)) // 2))
        assert fact["argv"] == [str(path), str(run.path)]
        assert fact["cwd"] == str(tmp_path)
        assert fact["session"] and fact["terminal"] == "0" and fact["stdin"] == "/dev/null"
        assert fact["descriptors"] == 4, "stdin, stdout, stderr, and the directory being listed"
    port = int(got[0]["env"]["MASTER_PORT"])
    assert got[1]["env"]["MASTER_PORT"] == str(port) and 1024 <= port < 65536

    assert (run.path / "logs/rank-1.log").read_text() == "out 1\nerr 1\nno end\n"
    assert list(run.logs(rank=0)) == ["out 0", "err 0", "no end"]
    joined = list(run.logs())
    assert sorted(joined) == sorted(
        f"[{rank}] {text}" for rank in (0, 1) for text in (f"out {rank}", f"err {rank}", "no end")
    )
    assert executor_jobs.unfold(capfd.readouterr().out.splitlines()) == executor_jobs.unfold(joined)

    files = {str(file.relative_to(run.path)) for file in run.path.rglob("*") if file.is_file()}
    assert {"recipe.yaml", "job.json", "launch.sh", "state.json", "logs/joined.log"} <= files
    assert recipe_to_yaml(load_recipe(run.path / "recipe.yaml")) == recipe_to_yaml(make_recipe(2))
    record = json.loads((run.path / "job.json").read_text())
    assert record["argv"] == list(job.argv) and record["world_size"] == 2 and record["env"]["NCCL_DEBUG"] == "WARN"
    assert not any(b"not to be written" in (run.path / name).read_bytes() for name in files if "facts" not in name)


@pytest.mark.parametrize(
    ("handed_out", "expected"), [("10100 65535", range(10000, 10100)), ("1024 65535", range(65536))]
)
def test_port_is_one_that_the_kernel_hands_out_if_there_is_no_other(handed_out, expected, monkeypatch):
    """To outgoing connections it hands out those of its range, which some machines have widened to all there are."""
    read = Path.read_text

    def answer(path, **options):
        return handed_out if path.name == "ip_local_port_range" else read(path, **options)

    monkeypatch.setattr(Path, "read_text", answer)
    assert linux.pick_port() in expected


def test_single_rank_has_no_prefix_and_keeps_the_users_threads(script, start, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    run = start(script(REPORT + "print('hello')"))
    assert run.wait() == 0
    assert list(run.logs()) == ["hello"]
    assert facts(run)["env"]["OMP_NUM_THREADS"] == "5"


def test_crash_of_one_rank_stops_the_others_and_their_children(script, start, processes):
    run = start(
        script(
            f"""
def stop(*_):
    print("stopped", flush=True)
    sys.exit(5)
signal.signal(signal.SIGTERM, stop)
{GRANDCHILDREN}
(run_dir / f"up-{{rank}}").touch()
if rank == 1:
    for other in (0, 2):
        wait(f"up-{{other}}")
    sys.exit(7)
time.sleep(600)
"""
        ),
        3,
    )
    assert run.wait() == 7
    processes.assert_only_supervision()
    assert run.status().reason == "rank 1 exited with code 7"
    assert run.status().state == "failed"
    assert sorted(run.logs()) == ["[0] stopped", "[2] stopped"]
    processes.wait_until_gone()


def test_rank_that_ignores_sigterm_is_killed_after_the_grace(script, start):
    run = start(
        script(
            """
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            (run_dir / f"up-{rank}").touch()
            if rank == 0:
                wait("up-1")
                sys.exit(3)
            wait("never")
            """
        ),
        2,
        grace=0.5,
    )
    assert run.wait() == 3
    assert run.status().reason == "rank 0 exited with code 3"


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGKILL, "rank 0 was killed by signal 9 (SIGKILL: out of memory?)"),
        (signal.SIGSEGV, "rank 0 was killed by signal 11 (SIGSEGV)"),
    ],
)
def test_rank_killed_by_a_signal(script, start, number, reason):
    run = start(script(f"os.kill(os.getpid(), {int(number)})"))
    assert run.wait() == 128 + number
    assert run.status().reason == reason


@pytest.mark.parametrize("first", ["the killed rank", "the one that lost it"])
def test_rank_killed_is_the_reason_whatever_the_others_report(script, start, first):
    run = start(
        script(
            f"""
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            (run_dir / f"up-{{rank}}").touch()
            wait("up-0"), wait("up-1")
            if rank == 1:
                {"wait('gone')" if first == "the one that lost it" else ""}
                os.kill(os.getpid(), signal.SIGKILL)
            {"time.sleep(0.5)" if first == "the killed rank" else ""}
            report = {{"rank": 0, "kind": "user", "message": "the checkpoint could not be written: peer closed"}}
            (run_dir / "failure.json").write_text(json.dumps(report))
            (run_dir / "gone").touch()
            sys.exit(2)
            """
        ),
        2,
    )
    assert run.wait() == 128 + signal.SIGKILL
    assert run.status().reason == "rank 1 was killed by signal 9 (SIGKILL: out of memory?)"


@pytest.mark.parametrize(
    ("written", "exit_code", "reason"),
    [
        (
            '{"rank": 1, "kind": "user", "message": "data.data_path: no such file"}',
            2,
            "data.data_path: no such file",
        ),
        ('{"rank": 1, "kind": "crash", "message": "ValueError:\\nbad"}', 9, "rank 1: ValueError: bad"),
        ('{"rank": 1, "kind": "us', 9, "rank 0 exited with code 9"),
        ('[{"rank": 1}]', 9, "rank 0 exited with code 9"),
    ],
)
def test_reason_comes_from_the_failure_report(script, start, written, exit_code, reason):
    run = start(script(f"(run_dir / 'failure.json').write_text({written!r}); sys.exit(9)"))
    assert run.wait() == exit_code
    assert run.status().reason == reason


def test_program_that_cannot_be_started(runs_dir):
    job = make_job("unused", runs_dir, 2)
    run = executors.start_job(executor_jobs.dataclasses.replace(job, argv=("/no/such/python",)), detach=True)
    assert run.wait() == 1
    assert run.status().state == "failed"
    assert "rank 0 could not be started" in run.status().reason and "/no/such/python" in run.status().reason


def test_progress_bar_does_not_become_one_giant_line(script, start):
    run = start(
        script(
            """
            for step in range(20000):
                print(f"\\rstep {step} " + "#" * 60, end="")
            print("\\ndone")
            """
        )
    )
    assert run.wait() == 0
    lines = list(run.logs())
    assert lines[-2:] == ["step 19999 " + "#" * 60, "done"]
    assert len(lines) < 20 and max(map(len, lines)) < 100


def test_resume_in_the_same_directory(script, start, runs_dir, capfd):
    path = script(
        "print('steps', (run_dir / 'recipe.yaml').read_text().split('max_steps: ')[1].split()[0]); sys.exit(3)"
    )
    run = start(path)
    assert run.wait() == 3
    (run.path / "failure.json").write_text('{"rank": 0, "kind": "user", "message": "of the first attempt"}')
    first = (run.path / "recipe.yaml").read_text()

    run.resume()
    assert run.status().exit_code == 3 and run.status().reason == "rank 0 exited with code 3"
    assert not (run.path / "recipe.1.yaml").exists()
    assert "steps 1" in capfd.readouterr().out

    run.resume(make_recipe(2, max_steps=5), detach=True)
    assert run.wait() == 3
    assert (run.path / "recipe.1.yaml").read_text() == first
    assert recipe_to_yaml(load_recipe(run.path / "recipe.yaml")) == recipe_to_yaml(make_recipe(2, max_steps=5))
    assert {line for line in run.logs() if "steps 5" in line} & {"[0] steps 5", "[1] steps 5"}
    state = read_state(run.path)
    assert state.attempt == 3 and state.earlier_seconds > 0
    assert "steps 1" in next(run.logs()), "the log of earlier attempts is kept"
    assert [found.path for found in executors.list_runs(runs_dir)] == [run.path]


def test_run_in_use_is_refused(script, start, tmp_path):
    run = start(script("wait('go')"))
    with pytest.raises(RunError, match=r"is in use: running on .*cancel it first") as refused:
        run.resume()
    assert "\n" not in str(refused.value)
    assert acquire_lock(run.path) is None
    assert not (run.path / "recipe.1.yaml").exists()
    (run.path / "go").touch()
    assert run.wait() == 0

    # One of several resumes at the same time gets through.
    (run.path / "go").unlink()
    code = f"import executors; executors.Run(__import__('pathlib').Path({str(run.path)!r})).resume(detach=True)"
    rivals = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    errors = [rival.communicate()[1] for rival in rivals]
    assert sorted(rival.returncode for rival in rivals) == [0, 1, 1]
    assert sum("is in use" in error for error in errors) == 2
    (run.path / "go").touch()
    assert run.wait() == 0
    assert json.loads((run.path / "state.json").read_text())["attempt"] == 2


def test_simultaneous_launches_get_their_own_directories(script, runs_dir):
    path = script("(run_dir / 'mark').write_text('x')")
    job = make_job(path, runs_dir)
    code = (
        "import executor_jobs, executors, dataclasses, sys; from pathlib import Path;"
        f"job = executor_jobs.make_job({str(path)!r}, {str(runs_dir)!r});"
        f"print(executors.start_job(dataclasses.replace(job, run_dir=Path({str(job.run_dir)!r}))).name)"
    )
    options = {"cwd": Path(__file__).parent, "stdout": subprocess.PIPE, "text": True}
    launches = [subprocess.Popen([sys.executable, "-c", code], **options) for _ in range(5)]
    names = {launch.communicate()[0].strip() for launch in launches}
    assert names == {job.run_dir.name, *(f"{job.run_dir.name}-{number}" for number in range(2, 6))}
    runs = executors.list_runs(runs_dir)
    assert {run.name for run in runs} == names
    for run in runs:
        assert run.status().state == "succeeded" and (run.path / "mark").read_text() == "x"
        assert str(run.path) in (run.path / "launch.sh").read_text()
    assert {entry.name for entry in runs_dir.iterdir()} == names, "nothing half-written is left"


def test_script_runs_the_job_when_pasted_into_a_shell(script, runs_dir, tmp_path):
    job = make_job(
        script("print('from the shell', sys.argv[1:]); sys.exit(4)"), runs_dir, name="it's $HOME", arguments=("a b",)
    )
    text = job.script() + "echo code $?\n"
    result = subprocess.run(["sh"], input=text, capture_output=True, text=True, cwd="/")
    assert result.stdout.splitlines() == [f"from the shell {['a b', str(job.run_dir)]}", "code 4"], result.stderr
    run = executors.find_run("it's $HOME", runs_dir)
    assert run.status().reason == "rank 0 exited with code 4"
    # launch.sh, which is written at the start, starts it again.
    again = subprocess.run([run.path / "launch.sh"], capture_output=True, text=True, cwd="/")
    assert again.returncode == 4 and "from the shell" in again.stdout


def test_planned_script_is_what_the_run_directory_holds(script, start, runs_dir):
    job = make_job(script("pass"), runs_dir)
    run = executors.start_job(job, detach=True)
    assert (run.path / "launch.sh").read_text() == job.script()
    assert run.wait() == 0


@pytest.mark.parametrize(
    ("recipe", "options", "error", "message"),
    [
        (make_recipe(max_steps=0), {}, RecipeError, "trainer.max_steps=0"),
        (make_recipe(num_nodes=2), {}, RecipeError, "trainer.num_nodes=2: the local executor runs on one machine"),
        (make_recipe(), {"name": ""}, RunError, "needs a name"),
        (make_recipe(), {"name": "  "}, RunError, "needs a name"),
        (make_recipe(), {"name": "-rf"}, RunError, "cannot start with '-'"),
        (make_recipe(), {"name": "../up"}, RunError, "cannot start with '.'"),
        (make_recipe(), {"name": "a/b"}, RunError, "cannot hold '/'"),
        (make_recipe(), {"name": "a\nb"}, RunError, "line breaks"),
        (make_recipe(), {"name": "ü" * 101}, RunError, "longer than 200 bytes"),
        (make_recipe(), {"name": "latest"}, RunError, "^name='latest': .* the newest run"),
        (make_recipe(name="latest"), {}, RunError, "^name='latest': .* the newest run"),
        (make_recipe(name="a/b"), {}, RecipeError, "name=a/b: .* cannot hold '/'"),
    ],
)
def test_what_cannot_run_leaves_nothing_behind(recipe, options, error, message, runs_dir):
    with pytest.raises(error, match=message) as raised:
        executors.run(recipe, LocalExecutor(), runs_dir=runs_dir, **options)
    assert "\n" not in str(raised.value)
    assert not runs_dir.exists()


@pytest.mark.parametrize(
    ("place", "said"), [("file/runs", ""), ("file", "file: .*: is a file, expected a folder"), ("/proc/runs", "")]
)
def test_unwritable_runs_directory_is_one_line(place, said, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=said or "cannot write a run directory") as raised:
        executors.run(make_recipe(), runs_dir=tmp_path / place)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"env": {"WORLD_SIZE": "2"}},
        {"env": {"A B": "x"}},
        {"env": {"A": "null \0 byte"}},
        {"env": {"A": 3}},
        {"env": {"A": "\ud800"}},
        {"grace_seconds": -1},
        {"grace_seconds": "5"},
    ],
)
def test_executor_refuses_fields_it_cannot_use(fields):
    with pytest.raises(UserError, match=r"^executor\."):
        LocalExecutor(**fields)
