"""Nothing of a launcher that the command was started by reaches a rank; settings that users tune by do."""

import os
import sys

import pytest

import executors
from executors import LocalExecutor
from executors.docker.executor import DockerExecutor
from executors.process.surroundings import launcher_of, rank_environment
from executors.slurm.executor import SlurmExecutor
from neva_recipes.config import RunError
from tests.end_to_end.world import make_world, nemo_run
from tests.executors.executor_jobs import make_job
from tests.executors.surroundings import OF_USERS, TOLD
from tests.training._results import losses


def test_one_list_has_them_all():
    unheard = {name for name in TOLD if launcher_of(name) is None}
    assert unheard == set(executors.base.RANK_VARIABLES)  # set anew for every rank
    assert not [name for name in OF_USERS if launcher_of(name)]
    own = {"RANK": "0", "SLURM_CPU_BIND": "none"}
    assert rank_environment(TOLD | OF_USERS, own)["RANK"] == "0"
    found = rank_environment(TOLD | OF_USERS, own | dict.fromkeys(executors.base.RANK_VARIABLES, "x"))
    assert found.keys() - own.keys() - set(executors.base.RANK_VARIABLES) == OF_USERS.keys()


def test_two_ranks_train_whatever_the_command_was_started_by(tmp_path, monkeypatch):
    """The same losses as without; torchrun's agent alone would have them wait for its store for ever."""
    world = make_world(tmp_path)
    words = [*world.tiny(), "trainer.devices=2", "trainer.accelerator=cpu"]
    nemo_run("llava.finetune", *words, "--name", "plain", cwd=world.folder)
    for name, value in (TOLD | OF_USERS).items():
        monkeypatch.setenv(name, value)
    nemo_run("llava.finetune", *words, "--name", "told", cwd=world.folder)
    plain, told = (executors.find_run(name, world.folder / "runs") for name in ("plain", "told"))
    assert len(losses(plain.path)) == 3
    assert losses(told.path) == losses(plain.path)


def test_what_the_executor_says_stays(tmp_path, monkeypatch):
    """A setting of srun's is its user's to make, and the stages of a pipeline get it through a process of this kind."""
    monkeypatch.setenv("SLURM_NTASKS", "64")
    script = tmp_path / "rank.py"
    script.write_text("import os, sys\nopen(sys.argv[-1] + '/seen', 'w').write(str(sorted(os.environ)))\n")
    run = executors.start_job(make_job(script, tmp_path, env={"SLURM_CPU_BIND": "none"}), detach=True)
    assert run.wait() == 0
    seen = (run.path / "seen").read_text()
    assert "SLURM_CPU_BIND" in seen and "SLURM_NTASKS" not in seen


@pytest.mark.parametrize("make", [LocalExecutor, SlurmExecutor, DockerExecutor])
@pytest.mark.parametrize("name", ["TORCHELASTIC_USE_AGENT_STORE", "PMIX_RANK", "PL_TRAINER_MAX_STEPS", "NCCL_COMM_ID"])
def test_nobody_sets_them_for_ranks(make, name):
    with pytest.raises(RunError, match=rf"^executor.env: by {name} .* tells processes of their place.*: leave it out$"):
        make(env={name: "1"})


def test_nobody_passes_them_on(monkeypatch):
    monkeypatch.setenv("PMI_RANK", "1")
    executor = DockerExecutor(image="x", pass_env=["PMI_RANK"], user=f"{os.geteuid()}:{os.getegid()}")
    job = make_job(sys.argv[0], "/runs")
    with pytest.raises(RunError, match=r"^executor.pass_env: by PMI_RANK PMI tells its own processes of their place"):
        executor.check(job.layout)
