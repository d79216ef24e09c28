"""Mistakes that Slurm itself would take: refused beforehand, or told by the line that says what was wrong."""

import os

import pytest

from executors.slurm.executor import SlurmExecutor
from executors.slurm.run import failure_of
from neva_recipes.config import UserError
from tests.slurm.slurm_jobs import start


@pytest.mark.parametrize("time", ["0", "0:00", "0-0"])
def test_no_limit_is_more_than_a_partition_allows(cluster, tmp_path, time):
    """Slurm reads it so, and would have the job wait for ever."""
    with pytest.raises(UserError) as caught:
        start("/rank.py", tmp_path / "runs", partition="short", time=time)
    assert str(caught.value).startswith(f"executor.time={time} is no limit to Slurm, and partition short allows 2 minu")
    assert str(caught.value).endswith("; partition main would do")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "name",
    ["SLURM_JOB_ID", "SLURM_JOBID", "SLURM_ARRAY_TASK_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_RESTART_COUNT"],
)
def test_what_a_job_knows_itself_by(name):
    with pytest.raises(UserError, match=rf"^executor.env: {name} is set by Slurm for every job: leave it out$"):
        SlurmExecutor(env={name: "3"})


def test_settings_of_srun_are_the_users():
    assert SlurmExecutor(env={"SLURM_CPU_BIND": "none"}).env


def test_an_image_without_a_name():
    expected = r"^executor.container_image='': is empty: expected the name of an image, or the path of"
    with pytest.raises(UserError, match=expected):
        SlurmExecutor(container_image="")


def test_variables_of_the_ranks_do_not_change_the_submission(cluster, script, tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "sbatch").write_text("#!/bin/sh\nexit 1\n")
    (programs / "sbatch").chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    body = "(run_dir / 'path').write_text(os.environ['PATH'])"
    run = start(script(body), tmp_path / "runs", gpu_request="none", env={"PATH": path})
    assert run.wait() == 0, run.status()
    assert (run.path / "path").read_text() == path


@pytest.mark.parametrize(
    ("fields", "beginning", "reason"),
    [
        (
            {"srun": ["--no-such-option"]},
            "the batch script exited with code ",
            "srun: unrecognized option '--no-such-option'",
        ),
        (
            {"setup": ["no-such-program || exit 7"]},
            "executor.setup: 'no-such-program || exit 7' failed with exit code 7",
            "no-such-program: command not found",
        ),
    ],
)
def test_the_reason_is_the_line_that_says_why(cluster, tmp_path, fields, beginning, reason):
    run = start("/rank.py", tmp_path / "runs", gpu_request="none", **fields)
    assert run.wait() not in (0, None)
    status = run.status()
    assert status.state == "failed"
    assert status.reason.startswith(beginning)
    assert reason in status.reason
    assert "_step_signal" not in status.reason and "Try " not in status.reason


_ENDED = "srun: error: node1: task 0: Exited with exit code 2\n"
_ENDS = _ENDED + "srun: launch/slurm: _step_signal: Terminating StepId=5.0\n"
_CANCELLED = "slurmstepd-node1: error: *** JOB 5 ON node1 CANCELLED AT 2026-01-31 ***\n"
_NO_PROGRAM = "slurmstepd-node1: error: execve(): /no/such/python: No such file or directory\n"
_NO_OPTION = "srun: unrecognized option '--x'\n"
_NO_MODULE = "ModuleNotFoundError: No module named 'a'\n"


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (_NO_PROGRAM + _ENDS, _NO_PROGRAM),
        (_ENDS + _NO_PROGRAM + _CANCELLED, _NO_PROGRAM),
        ("step 7\n" + _NO_MODULE + _ENDS, _NO_MODULE),
        (_ENDS, _ENDED),
        (_NO_OPTION + 'Try "srun --help" for more information\n', _NO_OPTION),
        ("module: command not found\n", "module: command not found"),
    ],
)
def test_the_line_of_a_log_that_says_why(tmp_path, log, line):
    """Slurm's words come in no certain order."""
    (tmp_path / "slurm").mkdir()
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "joined.log").write_text(log)
    code, reason = failure_of(tmp_path, 2)
    assert code == 2 and reason.startswith(f"the batch script exited with code 2: {line.strip()}")
