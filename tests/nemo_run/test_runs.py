"""Runs whose ranks NeMo-Run started: what they are given, how they end, and how they are stopped from elsewhere."""

import json
import os
import re
import signal
from pathlib import Path

import pytest

import executors
from executors.process.gpu import has_gpu
from tests.end_to_end.world import HOSTILE
from tests.nemo_run.world import contents
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]

TOKEN = "hf_" + "abcdEFGH" * 4


def processes_of(run):
    """Return the command lines that name the run directory, or work below it, without the supervisor's two."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        if os.fsencode(run.path) in environment + command and b"executors.process.supervisor" not in command:
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


def losses(text):
    return re.findall(r"step \d+/\d+  loss [\d.]+", text)


def test_training_is_that_of_the_local_executor(nemo, world):
    words = [*world.tiny(trainer__devices=2), "--runs-dir", f"runs {HOSTILE}"]
    ours = nemo.nemo_run("llava.finetune", *words, cwd=world.folder)
    theirs = nemo.nemo_run("llava.finetune", "--executor", "nemo_run", *words, cwd=world.folder)
    assert len(losses(ours.stdout)) == 3
    assert losses(theirs.stdout) == losses(ours.stdout)
    assert re.fullmatch(r"llava\.finetune-[\d-]+ succeeded: .*\nnext:\n(?:  .+\n)+", theirs.stderr)
    assert not (world.folder / "canary").exists()


def test_failure_environment_and_secrets(nemo, tmp_path):
    env = {"ODD": HOSTILE + "\n${img_root}", "HF_TOKEN": TOKEN}
    failing, killed = nemo.start_all(
        """
        print("the token is", os.environ["HF_TOKEN"], flush=True)
        names = ("ODD", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
        seen = {name: os.environ[name] for name in names} | {"token": len(os.environ["HF_TOKEN"])}
        (run_dir / f"seen-{rank}.json").write_text(json.dumps(seen))
        if rank == 1:
            while len(list(run_dir.glob("seen-*"))) < 2:
                time.sleep(0.01)
            if os.environ["END"] == "exit":
                sys.exit(7)
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)
        """,
        [{"name": end, "fields": {"env": {**env, "END": end}}} for end in ("exit", "kill")],
        cwd=tmp_path,
    )
    assert failing.wait() == 7
    assert (failing.status().state, failing.status().reason) == ("failed", "rank 1: exited with code 7")
    assert killed.wait() == 137
    assert killed.status().reason == "rank 1: was killed by signal 9 (SIGKILL: out of memory?)"
    for run in (failing, killed):
        for rank in range(2):
            assert json.loads((run.path / f"seen-{rank}.json").read_text()) == {
                "ODD": HOSTILE + "\n${img_root}",
                "NODE_RANK": "0",
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "LOCAL_WORLD_SIZE": "2",
                "token": len(TOKEN),
            }
            assert list(run.logs(rank=rank)) == ["the token is ***"]
        assert sorted(run.logs()) == ["[0] the token is ***", "[1] the token is ***"]
        assert processes_of(run) == []
    assert TOKEN.encode() not in contents(tmp_path)


def test_stopped_then_resumed_then_cancelled(nemo, tmp_path):
    run = nemo.start(
        """
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
        signal.signal(signal.SIGUSR2, lambda *_: sys.exit(75))
        deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
        subprocess.Popen([sys.executable, "-S", "-c", deaf, run_dir], start_new_session=True)
        (run_dir / f"up-{rank}").touch()
        time.sleep(600)
        """,
        cwd=tmp_path,
    )
    both = [run.path / f"up-{rank}" for rank in range(2)]
    wait_for(lambda: all(path.exists() for path in both))
    os.kill(json.loads((run.path / "state.json").read_text())["supervisor"]["pid"], signal.SIGUSR2)
    assert run.wait() == 75
    assert run.status().state == "cancelled"
    assert processes_of(run) == []

    for path in both:
        path.unlink()
    nemo.drive("resume", cwd=tmp_path, path=str(run.path))
    wait_for(lambda: all(path.exists() for path in both))
    again = executors.find_run(run.path)
    again.cancel()
    assert (again.status().state, again.status().exit_code, again.status().attempt) == ("cancelled", 130, 2)
    assert processes_of(run) == []


def test_recipe_in_an_experiment_of_nemo_run(nemo, world):
    state = nemo.drive("partial", cwd=world.folder, words=world.tiny(), runs_dir="runs of a partial")
    (run,) = executors.list_runs(world.folder / "runs of a partial")
    assert (state, run.status().state, run.status().step) == ("SUCCEEDED", "succeeded", 2)


def test_example_of_the_documentation(nemo, tmp_path):
    """NeMo-Run loads the script of an experiment again in each of its tasks: the example starts one all the same."""
    text = (Path(__file__).parents[2] / "docs" / "nemo_run.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(import nemo_run\n.*?)```", text, re.DOTALL)
    (tmp_path / "example.py").write_text(example, encoding="utf-8")
    nemo.run(nemo.python, "-P", "example.py", cwd=tmp_path)
    (experiment,) = (tmp_path / "nemo-run home" / "experiments" / "vision").iterdir()
    # Where there is no GPU, that is said first.
    expected = b"error: data.data_path=chats.json: no such file" if has_gpu(os.environ) else b"this machine has no GPU"
    assert expected in contents(experiment)
