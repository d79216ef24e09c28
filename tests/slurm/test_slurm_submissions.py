"""What a submission leaves behind: one file of code, nothing where Slurm refuses, and few questions about many jobs."""

import os
import shutil
import subprocess
import zipfile
from collections import Counter
from pathlib import Path

import pytest

import executors
from executors import Pipeline, Stage, run_pipeline
from executors.base import RefusedError
from executors.pipelines.directory import stage_statuses
from executors.slurm import submission
from executors.slurm.executor import SlurmExecutor
from neva_recipes.cli.main import main
from neva_recipes.sweep import sweep
from tests.pipelines.recipes import make_recipe
from tests.slurm.slurm_jobs import points, start
from tests.waiting import wait_for

HELD = {"gpu_request": "none", "code_snapshot": False, "sbatch": {"hold": ""}}


def job_ids():
    output = subprocess.run(["squeue", "--noheader", "--format=%A %T"], capture_output=True, text=True, check=True)
    return {line.split()[0] for line in output.stdout.splitlines() if "COMPLETING" not in line}


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A folder that is first on PATH; `put(name, text)` puts shell text there that may call the `$real` program."""
    folder = tmp_path / "programs"
    folder.mkdir()

    def put(name, text):
        real = shutil.which(name, path=os.environ["PATH"].removeprefix(f"{folder}:"))
        (folder / name).write_text(f"#!/bin/sh\nreal={real}\n{text}\n")
        (folder / name).chmod(0o755)

    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return put


@pytest.fixture
def calls(programs, tmp_path, monkeypatch):
    """Count the questions to Slurm since the last time; answers are good for so long as a slow machine may take."""
    monkeypatch.setattr(SlurmExecutor, "answer_seconds", 60.0)
    for name in ("squeue", "sacct", "sinfo"):
        programs(name, f'echo {name} >>{tmp_path}/calls\nexec "$real" "$@"')

    def count():
        path = tmp_path / "calls"
        found = Counter(path.read_text().split()) if path.exists() else Counter()
        path.write_text("")
        return dict(found)

    return count


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"account": "nobody"}, "Invalid account or account/partition combination specified"),
        ({"qos": "urgent"}, "Invalid qos specification"),
        ({"constraint": "gold"}, "Invalid feature specification"),
    ],
)
def test_what_slurm_refuses_leaves_nothing_behind(cluster, tmp_path, fields, words):
    before, runs_dir = job_ids(), tmp_path / "runs"
    with pytest.raises(RefusedError, match=f"^Slurm refuses the job: .*{words}$"):
        start("/rank.py", runs_dir, gpu_request="none", **fields)
    alike = sweep("s", points(3))
    chain = Pipeline("p", Stage("a", make_recipe()) >> Stage("b", make_recipe()))
    for pipeline in (alike, chain):
        with pytest.raises(RefusedError, match=f"{words}$"):
            run_pipeline(pipeline, SlurmExecutor(gpu_request="none", **fields), runs_dir, detach=True)
    assert list(runs_dir.iterdir()) == []
    assert job_ids() <= before


def test_the_command_says_in_one_line_what_slurm_refuses(cluster, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("some words\n" * 100)
    words = ["size=tiny", "data.data_path=text.txt", "data.tokenizer=owner/name", "executor.gpu_request=none"]
    # A batch is larger than this data, which the plan warns of.
    words += ["--executor", "slurm", "executor.account=nobody", "--detach", "--quiet"]
    for more in ([], ["optim.lr=1e-4,2e-4", "--sweep"]):
        assert main(["gpt.pretrain", *words, *more]) == 2
        *points, line = capsys.readouterr().err.splitlines()
        assert line.startswith("error: Slurm refuses the job: ") and "account" in line
        assert bool(points) == bool(more) and not any(text.startswith("error") for text in points)
        assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize("kind", ["sweep", "chain"])
def test_what_was_submitted_before_the_refusal_is_cancelled(cluster, tmp_path, programs, kind):
    programs(
        "sbatch",
        f"""if mkdir {tmp_path}/first 2>/dev/null; then exec "$real" "$@"; fi
        echo 'sbatch: error: Batch job submission failed: Job violates accounting/QOS policy' >&2; exit 1""",
    )
    before = job_ids()
    one, two = make_recipe(), make_recipe(devices=2)
    steps = [Stage("1", one), Stage("2", two)] if kind == "sweep" else Stage("1", one) >> Stage("2", two)
    with pytest.raises(RefusedError, match=r"Job violates accounting/QOS policy$"):
        run_pipeline(Pipeline("p", steps), SlurmExecutor(**HELD), tmp_path / "runs", detach=True)
    assert (tmp_path / "first").exists()
    assert wait_for(lambda: job_ids() <= before)
    assert list((tmp_path / "runs").iterdir()) == []


def test_many_runs_are_one_question(cluster, tmp_path, calls, capsys):
    runs = [start("/rank.py", tmp_path / "runs", name=f"r{number}", **HELD) for number in range(3)]
    calls()
    assert main(["status", "--runs-dir", str(tmp_path / "runs")]) == 0
    assert capsys.readouterr().out.count(" queued ") == 3
    assert calls() == {"squeue": 1}
    subprocess.run(["scancel", *(run.supervisor()["slurm_job_id"] for run in runs)], check=True)
    wait_for(lambda: all(run.status().state == "cancelled" for run in executors.list_runs(tmp_path / "runs")))
    # Once the end is written down nobody is asked.
    calls()
    assert main(["status", "--runs-dir", str(tmp_path / "runs")]) == 0
    assert calls() == {}


def test_many_points_are_one_question(cluster, tmp_path, calls):
    pipeline = sweep("s", points(6))
    run = run_pipeline(pipeline, SlurmExecutor(**HELD), tmp_path / "runs", detach=True)
    calls()
    stages = stage_statuses(run.path, goes_on=True)
    assert [stage.status.state for stage in stages] == ["queued"] * 6
    assert all(" waits: JobHeldUser" in stage.status.reason for stage in stages)
    assert calls() == {"squeue": 1}
    array = stages[0].run.supervisor()["slurm_job_id"].partition("_")[0]
    subprocess.run(["scancel", f"{array}_[1-2]"], check=True)
    calls()
    stages = stage_statuses(run.path, goes_on=True)
    assert [stage.status.state for stage in stages] == [
        "queued",
        "cancelled",
        "cancelled",
        "queued",
        "queued",
        "queued",
    ]
    assert calls()["sacct"] == 1
    assert run.status().state == "queued"
    run.cancel(force=True)
    assert run.status().state == "cancelled"
    calls()
    run.resume(detach=True)
    assert calls()["sinfo"] == 1
    stages = stage_statuses(run.path, goes_on=True)
    assert [(stage.status.state, stage.status.attempt) for stage in stages] == [("queued", 2)] * 6
    assert len({stage.run.supervisor()["slurm_job_id"].partition("_")[0] for stage in stages} - {array}) == 1


def test_a_job_runs_the_code_of_its_directory(cluster, tmp_path, script):
    rank = script("""
    import executors, neva_model
    (run_dir / "places").write_text(f"{executors.__file__}\\n{neva_model.__file__}")
    """)
    run = start(rank, tmp_path / "runs", gpu_request="none")
    assert run.wait() == 0
    places = (run.path / "places").read_text().splitlines()
    assert places == [f"{run.path}/code.zip/{name}/__init__.py" for name in ("executors", "neva_model")]
    installed = Path(executors.__file__).parent.parent
    with zipfile.ZipFile(run.path / "code.zip") as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    expected = [
        path
        for name in ("executors", "neva_model", "neva_recipes")
        for path in (installed / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert found == {str(path.relative_to(installed)): path.read_bytes() for path in expected}


def test_code_is_that_of_the_moment_of_submission(tmp_path, monkeypatch):
    installed, run_dir = tmp_path / "installed", tmp_path / "run"
    for name in ("executors", "neva_model", "neva_recipes"):
        (installed / name / "__pycache__").mkdir(parents=True)
        (installed / name / "__init__.py").write_text("number = 1")
        (installed / name / "__pycache__" / "a.pyc").write_text("")
    run_dir.mkdir()
    monkeypatch.setattr(submission, "__file__", str(installed / "executors" / "slurm" / "submission.py"))

    def written():
        submission.write_code(run_dir)
        with zipfile.ZipFile(run_dir / "code.zip") as archive:
            return {name: archive.read(name).decode() for name in archive.namelist()}

    expected = {f"{name}/__init__.py": "number = 1" for name in ("executors", "neva_model", "neva_recipes")}
    assert written() == expected
    assert written() == expected
    (installed / "neva_model" / "__init__.py").write_text("number = 2")
    (installed / "neva_recipes" / "more").mkdir()
    (installed / "neva_recipes" / "more" / "a.py").write_text("")
    (installed / "executors" / "__init__.py").unlink()
    del expected["executors/__init__.py"]
    expected |= {"neva_model/__init__.py": "number = 2", "neva_recipes/more/a.py": ""}
    assert written() == expected
    # A job that submits another one passes on what it runs itself.
    content = (run_dir / "code.zip").read_bytes()
    inside = run_dir / "code.zip" / "executors" / "slurm" / "submission.py"
    monkeypatch.setattr(submission, "__file__", str(inside))
    other = tmp_path / "other"
    other.mkdir()
    submission.write_code(other)
    assert (other / "code.zip").read_bytes() == content
