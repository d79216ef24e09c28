"""What a user has a run wait for: as Slurm itself takes it, and of a pipeline before its first stages."""

import subprocess
import time

import pytest

from executors import Pipeline, Stage, run_pipeline
from executors.pipelines.directory import stage_statuses
from executors.slurm.executor import SlurmExecutor
from neva_recipes.config import RunError, UserError
from tests.pipelines.recipes import make_recipe
from tests.pipelines.small_stages import runs_dir, starts
from tests.waiting import wait_for

__all__ = ["runs_dir", "starts"]

PLACE = {"gpu_request": "none", "code_snapshot": False}


def sbatch(*options):
    command = ["sbatch", "--parsable", "--output=/dev/null", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def held(cluster):
    """Two jobs that wait until they are released or cancelled, and an array of three."""
    return [sbatch("--hold", *options, "--wrap", "sleep 1").stdout.strip() for options in ([], [], ["--array=0-2"])]


EXPRESSIONS = [
    *("afterok:1", "afterany:1:2", "AfterOK:1", "1", "1,2", "afterok:1,afterany:2", "afterok:1?afterany:2"),
    *("after:1+5", "after:1+5:2+3", "singleton", "singleton,afterok:1", "afterok:1?singleton", "afterok:3_1"),
    *("afterok:3_*", "afterok:3_[0-1]", "aftercorr:3", "afternotok:1", "afterburstbuffer:1"),
]
WRONG = [
    *("1:2", "afterok:", "afterok", "afterok:1,", ",afterok:1", "afterok:1,,afterok:2", "afterok:x", "afteroks:1"),
    *("afterok:1:singleton", "singleton:1", "afterok:1;afterok:2", "1,afterok:2", "1?2", "tomorrow"),
]


def test_what_is_accepted_is_what_slurm_accepts(held):
    def told(text):
        for number, job in enumerate(held, start=1):
            text = text.replace(f":{number}", f":{job}")
        return ",".join(held[int(word) - 1] if word in ("1", "2") else word for word in text.split(","))

    verdicts = {}
    for text in map(told, [*EXPRESSIONS, *WRONG]):
        try:
            ours = SlurmExecutor(dependency=text).dependency == text
        except UserError:
            ours = False
        verdicts[text] = (ours, sbatch("--hold", f"--dependency={text}", "--wrap", "true").returncode == 0)
    assert {text: (taken, taken) for text, (_, taken) in verdicts.items()} == verdicts
    assert sum(taken for taken, _ in verdicts.values()) == len(EXPRESSIONS)


@pytest.mark.parametrize("form", ["afterany:{0}?afterany:{1}", "afterany:{0},afternotok:{1}", "{0}"])
def test_a_pipeline_begins_when_the_users_condition_is_met(held, runs_dir, starts, form):
    """Slurm itself says what each stage waits for; the order of starts shows that it does."""
    first, second, _ = held
    pipeline = Pipeline("p", Stage("a", make_recipe()) >> Stage("b", make_recipe()))
    (runs_dir / "hold a").touch()
    run = run_pipeline(pipeline, SlurmExecutor(**PLACE, dependency=form.format(first, second)), runs_dir, detach=True)
    a, b = (stage.run.supervisor()["slurm_job_id"] for stage in stage_statuses(run.path))
    waits = subprocess.run(["squeue", "--noheader", "--format=%E", f"--jobs={b}"], capture_output=True, text=True)
    assert waits.stdout.strip() == f"afterok:{a}(unfulfilled)"
    assert starts() == []
    subprocess.run(["scancel", first], check=True)
    if "," in form:
        time.sleep(3)
        assert starts() == []
        subprocess.run(["scancel", second], check=True)
    wait_for(lambda: starts() == ["a"])
    (runs_dir / "hold a").unlink()
    assert run.wait() == 0, run.status()
    assert starts() == ["a", "b"]


def test_what_slurm_cannot_be_told():
    before = [{"slurm_job_id": "7"}, {"slurm_job_id": "8_2"}]
    with pytest.raises(RunError, match=r"^executor.dependency=afterok:1\?afterok:2: waits for one of several"):
        SlurmExecutor(dependency="afterok:1?afterok:2").after(before)
    assert SlurmExecutor(dependency="1,2").after(before).dependency == "afterany:1:2,afterok:7:8_2"
    assert SlurmExecutor(dependency="singleton").after(before).dependency == "singleton,afterok:7:8_2"
    assert SlurmExecutor(dependency="afterok:1?afterok:2").after([]).dependency == "afterok:1?afterok:2"
