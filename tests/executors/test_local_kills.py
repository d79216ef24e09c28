"""Whoever is killed or interrupted, the run ends in a state that says so, and no process of it stays."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from executor_jobs import GRANDCHILDREN, PATIENCE, unfold

from neva_recipes.config import RunError
from neva_recipes.run_directory import processes
from tests.waiting import wait_for

pytestmark = pytest.mark.multiprocess

BUSY = f"""
{GRANDCHILDREN}
(run_dir / f"up-{{rank}}").touch()
print("up", flush=True)
time.sleep(600)
"""
DEAF = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
(run_dir / f"up-{rank}").touch()
print("up", flush=True)
time.sleep(600)
"""


def wait_until_up(run, world_size):
    wait_for(lambda: all((run.path / f"up-{rank}").exists() for rank in range(world_size)))


def supervisor_pid(run):
    return json.loads((run.path / "state.json").read_text())["supervisor"]["pid"]


def wait_until_shown(launcher, world_size=1):
    """Wait until the command has printed what every rank has: only then is its run in the foreground."""
    said = {}
    while len(said) < world_size:
        line = launcher.stdout.readline().rstrip("\n")
        assert line, launcher.stderr.read()
        said |= unfold([line]) if world_size > 1 else {0: [line]}
    return said


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[1])


def test_supervisor_killed(script, start, processes):
    run = start(script(BUSY), 2)
    wait_until_up(run, 2)
    wait_for(lambda: len(list(run.logs())) == 2)
    # The guard, the supervisor, and three processes for each rank.
    assert len(processes.alive()) == 8
    os.kill(supervisor_pid(run), signal.SIGKILL)
    processes.wait_until_gone()

    status = run.status()
    assert (status.state, status.exit_code) == ("lost", 1)
    assert status.reason == "its supervisor is gone: killed, or the machine went down"
    assert run.wait() == 1
    assert sorted(run.logs(follow=True)) == ["[0] up", "[1] up"]
    with pytest.raises(RunError, match="has already ended: lost"):
        run.cancel()

    (run.path / "up-0").unlink()
    run.resume(detach=True)
    wait_until_up(run, 1)
    assert run.status().state == "running"
    run.cancel()


def test_guard_killed(script, start, processes):
    run = start(script(BUSY), 2)
    wait_until_up(run, 2)
    os.kill(parent_of(supervisor_pid(run)), signal.SIGKILL)
    assert run.wait() == 1
    assert run.status().reason == "the guard process of the run was killed"
    processes.assert_only_supervision()
    processes.wait_until_gone()


def test_supervisor_and_guard_killed_together(script, start, processes):
    run = start(script(DEAF), 2)
    wait_until_up(run, 2)
    supervisor = supervisor_pid(run)
    guard = parent_of(supervisor)
    os.kill(guard, signal.SIGSTOP)  # so that it does nothing between the two
    os.kill(supervisor, signal.SIGKILL)
    os.kill(guard, signal.SIGKILL)
    processes.wait_until_gone()
    assert run.status().state == "lost"


def test_cancel_from_another_process(script, start, processes):
    run = start(script(BUSY), 2)
    wait_until_up(run, 2)
    code = f"import executors; executors.find_run({run.name!r}, {str(run.path.parent)!r}).cancel()"
    subprocess.run([sys.executable, "-c", code], check=True)
    processes.assert_only_supervision()
    status = run.status()
    assert (status.state, status.exit_code, status.reason) == ("cancelled", 130, "on request")
    processes.wait_until_gone()
    with pytest.raises(RunError, match=f"run {run.name} has already ended: cancelled"):
        run.cancel()


@pytest.mark.parametrize("asked_before", [False, True])
def test_forced_cancel_waits_for_no_grace(script, start, asked_before):
    run = start(script(DEAF), grace=600)
    wait_until_up(run, 1)
    if asked_before:
        run.request_cancel()
    run.cancel(force=True)
    assert (run.status().state, run.status().exit_code) == ("cancelled", 130)


def test_cancel_of_a_run_that_ended_well(script, start):
    run = start(script("pass"))
    assert run.wait() == 0
    with pytest.raises(RunError, match="has already ended: succeeded"):
        run.cancel()


def test_rank_that_ends_well_when_cancelled_does_not_make_a_success(script, start):
    run = start(
        script("signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); (run_dir / 'up-0').touch(); time.sleep(600)")
    )
    wait_until_up(run, 1)
    run.cancel()
    assert run.status().state == "cancelled" and run.status().exit_code == 130


def test_interrupt_in_the_foreground(script, command, only_run, processes):
    launcher = command(script(BUSY), "--world-size", "2")
    assert wait_until_shown(launcher, 2) == {0: ["up"], 1: ["up"]}
    run = only_run()
    os.killpg(launcher.pid, signal.SIGINT)
    out, err = launcher.communicate(timeout=PATIENCE)
    assert (launcher.returncode, out) == (130, ""), err
    assert "Ctrl-C again" in err and "Traceback" not in err
    assert run.status().state == "cancelled"
    processes.wait_until_gone()


def test_second_interrupt_kills_at_once(script, command, only_run):
    launcher = command(script(DEAF), "--grace", "600")
    wait_until_shown(launcher)
    run = only_run()
    os.killpg(launcher.pid, signal.SIGINT)
    assert "Ctrl-C again" in launcher.stderr.readline()
    os.killpg(launcher.pid, signal.SIGINT)
    launcher.communicate(timeout=PATIENCE)
    assert launcher.returncode == 130
    assert run.status().state == "cancelled"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_killed_command_takes_its_run_along(script, command, only_run, processes, number):
    launcher = command(script(BUSY))
    run = only_run()
    wait_until_up(run, 1)
    launcher.send_signal(number)
    assert launcher.wait() == -number
    assert run.wait() == 130
    assert run.status().reason == "the command that started it is gone"
    processes.wait_until_gone()


def test_reader_that_has_seen_enough_ends_the_run(script, command, only_run, processes):
    launcher = command(script("while True: print('again', flush=True); time.sleep(0.05)"))
    assert launcher.stdout.readline() == "again\n"
    launcher.stdout.close()
    assert launcher.stderr.readline().endswith(" is cancelled: nobody reads what it prints any more\n")
    run = only_run()
    assert run.wait() == 130
    assert run.status().state == "cancelled"
    processes.wait_until_gone()


def test_exit_code_of_the_command_is_the_runs(script, command):
    launcher = command(script("print('bye'); sys.exit(9)"))
    out, _ = launcher.communicate(timeout=PATIENCE)
    assert (out, launcher.returncode) == ("bye\n", 9)


def test_detached_run_survives_its_terminal(script, runs_dir, only_run, processes):
    path = script("print('up', flush=True); (run_dir / 'up-0').touch(); wait('go'); print('done')")
    terminal = {"master": -1}
    pid, terminal["master"] = pty.fork()
    if not pid:  # the leader of a session on the new terminal, as a login shell is
        here = Path(__file__).with_name("executor_jobs.py")
        os.execv(sys.executable, [sys.executable, str(here), str(path), str(runs_dir), "--detach"])
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal["master"])

    run = only_run()
    wait_until_up(run, 1)
    assert run.status().state == "running" and len(processes.alive()) == 3
    for process in processes.alive():
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")")[1].split()
        session, terminal_number = int(fields[3]), int(fields[4])
        assert session != pid and terminal_number == 0
        streams = [str(Path(f"/proc/{process}/fd/{stream}").readlink()) for stream in range(3)]
        assert not any(stream.startswith(("/dev/pts", "/dev/tty")) for stream in streams)
    (run.path / "go").touch()
    assert run.wait() == 0
    assert list(run.logs()) == ["up", "done"]


def test_children_that_a_rank_leaves_end_with_it(script, start, processes):
    run = start(script(GRANDCHILDREN + "wait('go')"))
    wait_for(lambda: run.status().state == "running")
    guard = parent_of(supervisor_pid(run))
    os.kill(guard, signal.SIGSTOP)  # the supervisor must not need its help
    (run.path / "go").touch()
    assert run.wait() == 0, "a rank that ended well is a success whatever it left running"
    processes.assert_only_supervision()
    os.kill(guard, signal.SIGCONT)
    processes.wait_until_gone()


def test_recycled_process_number_is_not_taken_for_the_supervisor(script, start):
    run = start(script("wait('never')"))
    wait_for(lambda: run.status().state == "running")
    os.kill(supervisor_pid(run), signal.SIGKILL)
    wait_for(lambda: run.status().state == "lost")
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        state = json.loads((run.path / "state.json").read_text())
        state["supervisor"]["pid"] = bystander.pid
        (run.path / "state.json").write_text(json.dumps(state))
        assert run.status().state == "lost"
        with pytest.raises(RunError, match="has already ended: lost"):
            run.cancel()
        time.sleep(0.1)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_run_of_another_machine_is_left_alone(script, start):
    run = start(script("wait('go')"))
    path = run.path / "state.json"
    state = wait_for(lambda: json.loads(path.read_text()))
    state["supervisor"]["hostname"] = "elsewhere"
    path.write_text(json.dumps(state))
    assert run.status().state == "running"
    with pytest.raises(RunError, match="runs on elsewhere: cancel it there"):
        run.cancel()
    with pytest.raises(RunError, match="is in use: running on elsewhere"):
        run.resume()
    (run.path / "go").touch()
    assert run.wait() == 0


def test_command_killed_before_its_run_started(runs_dir, script, start):
    run = start(script("pass"))
    run.wait()
    gone = subprocess.Popen(["sleep", "0"])
    identity = processes.identify(gone.pid)
    gone.wait()
    state = {"state": "created", "supervisor": identity}
    (run.path / "state.json").write_text(json.dumps(state))
    assert run.status().state == "lost"
    run.resume()
    assert run.status().state == "succeeded"


def test_logs_are_followed_from_another_process(script, start):
    run = start(
        script("print('first', flush=True); wait('go'); print('second', flush=True); wait('end'); print('last')"), 2
    )
    code = (
        f"import executors\nfor line in executors.find_run({str(run.path)!r}).logs(follow=True, rank=1):\n"
        "    print(line, flush=True)"
    )
    follower = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert follower.stdout.readline() == "first\n"
    (run.path / "go").touch()
    assert follower.stdout.readline() == "second\n"
    assert follower.poll() is None
    (run.path / "end").touch()
    assert follower.communicate(timeout=PATIENCE)[0] == "last\n"
    assert follower.returncode == 0
    with pytest.raises(RunError, match="has no rank 2: expected 0 to 1"):
        run.logs(rank=2)
