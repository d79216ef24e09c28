"""What cannot be started by NeMo-Run: one line that says why, exit code 2, nothing written, nothing started."""

from pathlib import Path

import pytest

from tests.end_to_end.world import contents
from tests.nemo_run.test_requests import CLUSTERS
from tests.slurm.clusters import cluster, cluster_folder  # noqa: F401 fixtures
from tests.slurm.test_slurm_refusals import job_ids

pytestmark = pytest.mark.slow

SECRET = "hf_" + "abcdEFGH" * 4
ELSEWHERE = "/tmp/neva-never-written"
ENVIRONMENT = {"DGX_CLIENT_SECRET": SECRET, "DOCKER_HOST": "unix:///no/such.sock"}


def backend(name, /, but=(), **options):
    """Return the words for a backend that has all it needs, but for some options, and further ones."""
    needed = {"docker": {"container_image": "neva"}, **CLUSTERS}[name]
    chosen = {key: value for key, value in {**needed, **options}.items() if key not in but}
    place = [f"executor.backend={name}", "--runs-dir", ELSEWHERE]
    return [*place, *(f"executor.options.{key}={value}" for key, value in chosen.items())]


MISTAKES = {
    "unknown backend": (["executor.backend=slrum"], "executor.backend='slrum': expected one of local, docker, slurm, "),
    "unknown executor": (
        ["--executor", "nemorun"],
        "executor nemorun: no such kind or profile (did you mean nemo_run?)",
    ),
    "no account": (
        backend("slurm", ["account"]),
        "executor.options: slurm needs account: add executor.options.account",
    ),
    "no image": (backend("docker", ["container_image"]), "executor.options: docker needs container_image: add "),
    "no address": (backend("dgxcloud", ["base_url"]), "executor.options: dgxcloud needs base_url: add "),
    "no folder": (backend("lepton", ["nemo_run_dir"]), "executor.options: lepton needs nemo_run_dir: add "),
    "unknown option": (
        backend("slurm", partion="gpu"),
        "executor.options.partion: no such option of NeMo-Run's SlurmExecutor (did you mean partition?)",
    ),
    "option of another backend": (
        backend("docker", partition="gpu"),
        "executor.options.partition: no such option of NeMo-Run's DockerExecutor",
    ),
    "number in words": (backend("slurm", gpus_per_node="eight"), "executor.options.gpus_per_node=eight: expected "),
    "broken YAML": (backend("docker", volumes="{"), "executor.options.volumes={: expected list[str], written as in"),
    "line break in YAML": (
        backend("slurm", additional_parameters='{comment: "a\\n#SBATCH --wrap=true"}'),
        "executor.options.additional_parameters='a\\n#SBATCH --wrap=true': has a line break, a control character or",
    ),
    "number of machines": (backend("slurm", nodes="3"), "executor.options.nodes: no such option of NeMo-Run's Slurm"),
    "own launcher": (backend("slurm", launcher="torchrun"), "executor.options.launcher: no such option of NeMo-Run's"),
    "option with a dash": (["executor.options.a-b=1"], "executor.options: name='a-b': expected a name of letters"),
    "options at once": (["executor.options={a: 1}"], "executor.options={a: 1}: is a table, set what is in it by name"),
    "secret in clear text": (
        backend("dgxcloud", client_secret="clear text"),
        "executor.options.client_secret: would be written to files: put it into a variable and set ",
    ),
    "variable that is not set": (
        backend("dgxcloud", client_secret="env:NOT_SET_ANYWHERE"),
        "executor.options.client_secret=env:NOT_SET_ANYWHERE: NOT_SET_ANYWHERE is not set in the environment",
    ),
    "secret on the command line": (
        [*backend("slurm"), f"executor.env.HF_TOKEN={SECRET}"],
        "executor.env.HF_TOKEN: a secret on a command line can be seen by everybody on the machine: set HF_TOKEN in",
    ),
    "unknown field": (["executor.bakend=local"], "executor.bakend: no such field (did you mean executor.backend?)"),
    "wrong field": (
        ["executor.grace_seconds=soon"],
        "executor.grace_seconds='soon': expected a number >= 0 and <= 3600",
    ),
    "variable of ranks": (["executor.env.RANK=1"], "executor.env: RANK is set by the executor itself: leave it out"),
    "Python with a space": (
        ["executor.python=/opt/my python"],
        "'/opt/my python': NeMo-Run does not quote paths, and ",
    ),
    "no such Python": (
        ["executor.python=/no/such/python"],
        "executor.python=/no/such/python: no such program here: set it to a Python that has this project, or leave",
    ),
    "Python that is no program": (["executor.python=/etc/passwd"], "executor.python=/etc/passwd: no such program"),
    "run directory with a space": (
        [*backend("docker"), "--runs-dir", "two words"],
        "NeMo-Run does not quote paths, and this one holds ' ': choose another one",
    ),
    "two machines": (["trainer.num_nodes=2"], "trainer.num_nodes=2: executor.backend=local runs on one machine; "),
    "too many GPUs": (
        [
            *backend("slurm", gpus_per_node="4"),
            "trainer.devices=8",
            "trainer.accelerator=gpu",
            "data.micro_batch_size=1",
        ],
        "executor.options.gpus_per_node=4: each of 8 processes of a machine needs a GPU; set it to 8, or trainer.dev",
    ),
    "no engine": (
        backend("docker"),
        "executor.backend=docker: no Docker engine answers at unix:///no/such.sock: start it, or name another one",
    ),
    "no Slurm": (
        backend("slurm"),
        "executor.backend=slurm: no Slurm here: sbatch is not on PATH",
    ),
    "run directory in a file": (["--runs-dir", "/dev/null/runs"], "/dev/null/runs: cannot write a run directory: "),
    "name with a slash": (["--name", "a/b"], "name='a/b': a run's name cannot hold '/'"),
    "no such data": (["data.data_path=no.json"], "data.data_path=no.json: no such file"),
    "unknown run to start from": (
        ["model.projector.from_pretrained=./runs/unknown"],
        "model.projector.from_pretrained=./runs/unknown: no such file or folder",
    ),
    "resume of an unknown run": (None, "no run 'unknown' in "),
}


@pytest.fixture(scope="module")
def answers(nemo, world, tmp_path_factory):
    """What the command answers to each, asked in one process, for NeMo-Run takes seconds to load; nothing is left."""
    words = ["llava.finetune", *world.tiny(), "--executor", "nemo_run"]
    cases = [["resume", "unknown"] if more is None else [*words, *more] for more, _ in MISTAKES.values()]
    before = contents(world.folder).keys()
    programs = tmp_path_factory.mktemp("programs")
    (programs / "torchrun").symlink_to("/bin/true")
    environ = {**ENVIRONMENT, "PATH": str(programs)}
    told = nemo.drive("commands", cwd=world.folder, cases=cases, environ=environ)
    written = sorted(contents(world.folder).keys() - before)
    return dict(zip(MISTAKES, told, strict=True)), written


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(answers, mistake):
    code, out, err = answers[0][mistake]
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1
    assert MISTAKES[mistake][1] in err
    assert SECRET not in err


def test_nothing_was_written(answers):
    assert answers[1] == []
    assert not Path(ELSEWHERE).exists()


def test_what_a_cluster_refuses(nemo, world, cluster):  # noqa: F811 the fixture
    """Slurm itself is asked, by `sbatch --test-only`."""
    mistakes = {
        "partition=gpus": "executor.options: Slurm refuses the job: invalid partition specified: gpus",
        "gpus_per_node=9": "executor.options: Slurm refuses the job: allocation failure: Requested node config",
        "account=nobody": "executor.options: Slurm refuses the job: allocation failure: Invalid account or",
        "time=soon": "executor.options: Slurm refuses the job: Invalid --time specification",
    }
    words = ["llava.finetune", *world.tiny(), "--executor", "nemo_run", "--runs-dir", ELSEWHERE]
    words += ["executor.backend=slurm", "executor.options.account=lab"]
    cases = [[*words, f"executor.options.{option}"] for option in mistakes]
    before = job_ids()
    told = nemo.drive("commands", cwd=world.folder, cases=cases)
    for (code, out, err), message in zip(told, mistakes.values(), strict=True):
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert err.startswith(f"error: {message}")
    assert not Path(ELSEWHERE).exists()
    assert job_ids() <= before
