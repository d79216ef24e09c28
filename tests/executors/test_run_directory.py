"""The files of a run directory: state, logs, metrics; and finding runs. No process is started but small Python ones."""

import copy
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from executor_jobs import make_recipe
from hypothesis import example, given
from hypothesis import strategies as st

import executors
from executors import Run
from executors.process.logs import LineAssembler, LogReader
from neva_recipes.config import RunError
from neva_recipes.run_directory.state import State, clear_unfinished, read_state, write_state
from neva_recipes.sweep import sweep


def plant(runs_dir, directory, name="demo", created="2025-01-01T00:00:00+00:00", state="succeeded"):
    """Write what a run directory needs to be found."""
    job = executors.plan_job(make_recipe(), name=name, runs_dir=runs_dir)
    path = runs_dir / directory
    path.mkdir(parents=True)
    record = {**json.loads(job.to_json()), "created": created}
    (path / "job.json").write_text(json.dumps(record))
    write_state(path, State(state=state, exit_code=0))
    return Run(path)


def test_runs_are_found_by_name_and_path(runs_dir, tmp_path, monkeypatch):
    old = plant(runs_dir, "demo-20250101-000000")
    other = plant(runs_dir, "other-20250102-000000", "other", "2025-01-02T00:00:00+00:00")
    new = plant(runs_dir, "demo-20250103-000000", created="2025-01-03T00:00:00+00:00")
    (runs_dir / "notes").mkdir()
    (runs_dir / ".new-1234").mkdir()
    (runs_dir / ".new-1234" / "job.json").write_text("{}")
    assert [run.path for run in executors.list_runs(runs_dir)] == [old.path, other.path, new.path]
    assert executors.find_run("demo", runs_dir).path == new.path
    assert executors.find_run("demo-20250101-000000", runs_dir).path == old.path
    assert executors.find_run(other.path, tmp_path).path == other.path
    monkeypatch.chdir(runs_dir)
    assert executors.find_run("./other-20250102-000000", tmp_path).path == other.path
    with pytest.raises(RunError, match=r"no run 'othr' in .*did you mean other"):
        executors.find_run("othr", runs_dir)
    for unknown in ("", "notes", "/", "zzzz"):
        with pytest.raises(RunError, match="no run"):
            executors.find_run(unknown, runs_dir)
    assert executors.list_runs(tmp_path / "missing") == []
    with pytest.raises(RunError, match="cannot be read"):
        executors.list_runs(other.path / "job.json")


def test_broken_run_does_not_hide_the_others(runs_dir):
    good, broken = plant(runs_dir, "good"), plant(runs_dir, "broken")
    (broken.path / "job.json").write_text("{")
    (runs_dir / "unreachable").symlink_to("n" * 300)  # as a directory of somebody else's, it cannot be looked into
    assert {run.name for run in executors.list_runs(runs_dir)} == {"good", "broken"}
    with pytest.raises(RunError, match=r"job\.json: cannot be read as the job of a run"):
        broken.logs()
    (good.path / "state.json").write_text('{"state": "running", "pid')
    assert good.status().state == "lost" and "state.json cannot be read" in good.status().reason


@pytest.mark.parametrize(
    ("text", "step"),
    [
        (None, None),
        ("", None),
        ("epoch,step\n", None),
        ("epoch,step,loss\n0,1,0.5\n0,2,0.4\n", 2),
        ("epoch,step,loss\n0,1,0.5\n0,25", 1),
        ('loss,step\n"1,5",7\n,8\n,\n', 8),
        ("loss\n1\n", None),
        ("step,loss\n" + "".join(f"{step},0.123456789\n" for step in range(1, 50001)), 50000),
    ],
)
def test_step_is_read_from_the_metrics(runs_dir, text, step):
    run = plant(runs_dir, "demo")
    if text is not None:
        (run.path / "metrics").mkdir()
        (run.path / "metrics" / "metrics.csv").write_text(text)
    assert run.status().step == step


@pytest.mark.parametrize(
    ("logged", "trained", "saved", "step"),
    [
        (25, None, 32, 32),  # a run of an older version
        (25, None, 20, 25),
        (25, "37", 32, 37),
        (25, "37", None, 37),
        (25, "20", 20, 20),  # it has gone on from step 20, and logs the next ones again
        (None, "3", None, 3),
        (None, "0", None, None),
        (None, "", 4, 4),
        (None, "word", None, None),
        (25, "20", 32, 32),  # the machine went down before the file was on the disk
    ],
)
def test_step_is_the_last_that_was_trained(runs_dir, logged, trained, saved, step):
    run = plant(runs_dir, "demo")
    (run.path / "metrics").mkdir()
    if logged is not None:
        (run.path / "metrics" / "metrics.csv").write_text(f"step,loss\n{logged},0.5\n")
    if trained is not None:
        (run.path / "metrics" / "step.txt").write_text(trained)
    if saved is not None:
        (run.path / "checkpoints" / f"step-{saved:08}").mkdir(parents=True)
    assert run.status().step == step


def test_killed_writer_never_leaves_a_broken_state(tmp_path):
    code = (
        "import sys; from pathlib import Path; from neva_recipes.run_directory.state import State, write_state\n"
        "number = 0\n"
        "while True:\n"
        "    number += 1\n"
        "    write_state(Path(sys.argv[1]), State(state='running', attempt=number, reason='x' * (number % 5000)))\n"
    )
    for delay in (0.0, 0.003, 0.01, 0.02, 0.05):
        write_state(tmp_path, State(state="created", attempt=0, reason=""))
        writer = subprocess.Popen([sys.executable, "-S", "-c", code, str(tmp_path)], env=_environment())
        while not read_state(tmp_path).attempt:
            time.sleep(0.001)
        for _ in range(100):
            state = read_state(tmp_path)
            assert len(state.reason) == state.attempt % 5000
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        state = read_state(tmp_path)
        assert len(state.reason) == state.attempt % 5000
    clear_unfinished(tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == {"state.json"}


def _environment():
    return {**os.environ, "PYTHONPATH": str(Path(executors.__file__).parents[1])}


chunks = st.lists(st.binary(max_size=40), max_size=30)


@given(chunks)
@example([b"\t"])
def test_lines_do_not_depend_on_how_the_output_arrives(pieces):
    pieces = [piece.replace(b"\r", b"") for piece in pieces]
    assembler = LineAssembler()
    lines = [line for piece in pieces for line in assembler.feed(piece, 0.0)] + assembler.finish()
    text = b"".join(pieces)
    expected = text.split(b"\n")
    assert lines == (expected if expected[-1] else expected[:-1])


@given(st.lists(st.sampled_from([b"ab", b"c", b"\r", b"\n", b"\r\n", b" "]), max_size=60))
def test_last_state_of_every_line_is_kept(pieces):
    """Whatever the cuts, each ended line's last visible text is logged, and nothing that was not on the line."""
    assembler = LineAssembler()
    lines = [line for piece in pieces for line in assembler.feed(piece, 0.0)] + assembler.finish()
    position = 0
    for segment in b"".join(pieces).split(b"\n"):
        visible = [text for text in segment.split(b"\r") if text.strip()]
        if visible:
            found = lines.index(visible[-1], position)
            assert all(line in visible or not line.strip() for line in lines[position:found])
            position = found + 1
    assert not any(b"\r" in line for line in lines)


def test_progress_is_thinned_by_time():
    assembler = LineAssembler()
    lines = [line for second in range(100) for line in assembler.feed(b"\rstep %d" % second, float(second))]
    assert lines == [b"step 0", b"step 10", b"step 20", b"step 30", b"step 40"] + [
        b"step %d" % second for second in range(50, 100, 10)
    ]
    assert assembler.feed(b"\n", 100.0) == [b"step 99"]


def test_endless_line_is_broken():
    assembler = LineAssembler()
    lines = [line for _ in range(300) for line in assembler.feed(b"x" * 1000, 0.0)] + assembler.finish()
    assert sum(map(len, lines)) == 300_000 and max(map(len, lines)) == 65536


@given(st.lists(st.text(alphabet="aü\n", max_size=20), max_size=10))
def test_reader_returns_every_line_once(tmp_path_factory, pieces):
    path = tmp_path_factory.mktemp("log") / "log"
    reader, lines = LogReader(path), []
    assert reader.read_lines() == []
    for piece in pieces:
        with path.open("ab") as file:
            for byte in piece.encode():
                file.write(bytes([byte]))
                file.flush()
                lines += reader.read_lines()
    lines += reader.read_rest()
    expected = "".join(pieces).split("\n")
    assert lines == (expected if expected[-1] else expected[:-1])


def test_supervisor_and_launcher_load_no_more_than_they_need():
    code = "import sys, {}; print(*sys.modules)"
    run = lambda module: subprocess.run(  # noqa: E731
        [sys.executable, "-c", code.format(module)], capture_output=True, text=True, check=True, env=_environment()
    ).stdout.split()
    supervisor, launcher = run("executors.process.supervisor"), run("executors.launch")
    assert not {"torch", "fiddle", "yaml", "neva_recipes.config", "executors.launch"} & set(supervisor)
    assert not {"torch", "transformers", "megatron", "lightning", "neva_model"} & set(launcher)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Nowhere(executors.LocalExecutor):
    """Starts nothing, as many at a time as there are."""

    starts_together = True

    def after(self, supervisors):
        return self

    def start(self, job, *, lock, lifeline):
        raise RunError("nothing is started here")

    def start_together(self, jobs, folder):
        raise RunError("nothing is started here")


@pytest.mark.parametrize("together", [False, True])
def test_a_directory_is_on_the_disk_before_it_has_its_name(runs_dir, monkeypatch, together):
    synced, named = set(), {}
    fsync, rename = os.fsync, Path.rename

    def note_sync(descriptor):
        fsync(descriptor)
        synced.add(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    def note_rename(path, target):
        if path.name.startswith(".new-"):
            named.update({str(entry): str(entry) in synced for entry in [path, *path.rglob("*")]})
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "rename", note_rename)
    recipe = make_recipe()
    recipe.data.data_path = __file__
    with pytest.raises(RunError, match="nothing is started here"):
        if together:
            points = []
            for number in "123":
                recipe.trainer.seed = int(number)
                points.append(({"n": number}, copy.deepcopy(recipe)))
            executors.run_pipeline(sweep("s", points), _Nowhere(), runs_dir)
        else:
            executors.start_job(executors.plan_job(recipe, _Nowhere(), runs_dir=runs_dir))
    names = [Path(path).name for path in named]
    for name in ("job.json", "state.json", "launch.sh", "recipe.yaml", "plan.json", "joined.log", "logs"):
        assert names.count(name) == (1 if not together else 3 if name in ("recipe.yaml", "plan.json") else 4)
    assert [path for path, was_synced in named.items() if not was_synced and not path.endswith(".lock")] == []
