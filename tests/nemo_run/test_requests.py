"""What NeMo-Run would ask of its backends for our jobs, and the options that are refused before anything is asked."""

import json
import shlex
import subprocess

import pytest

from executors.conformance import HOSTILE

pytestmark = pytest.mark.slow

SECRET = "a value that nobody may see"

CLUSTERS = {
    "slurm": {
        "account": "vision",
        "partition": "gpu",
        "gpus_per_node": "8",
        "container_image": "neva.sqsh",
        "container_mounts": "[/data:/data]",
    },
    "dgxcloud": {
        "base_url": "https://dgx.example",
        "kube_apiserver_url": "https://kube.example",
        "client_id": "me",
        "client_secret": "env:DGX_CLIENT_SECRET",
        "project_name": "vision",
        "container_image": "neva",
        "pvc_nemo_run_dir": "/data/nemo_run",
        "pvcs": "[{name: data, path: /data}]",
    },
    "lepton": {"container_image": "neva", "nemo_run_dir": "/data/nemo_run", "resource_shape": "gpu.8xh100-80gb"},
}

WRONG = [
    ("slurm", {}, "executor.options: slurm needs account: add executor.options.account=..."),
    (
        "slurm",
        {"account": "a", "partion": "gpu"},
        "executor.options.partion: no such option of NeMo-Run's SlurmExecutor (did you mean partition?)",
    ),
    (
        "slurm",
        {"account": "a", "gpus_per_node": "eight"},
        "executor.options.gpus_per_node=eight: expected Optional[int], written as in YAML",
    ),
    (
        "slurm",
        {"account": "a", "nodes": "3"},
        "executor.options.nodes: no such option of NeMo-Run's SlurmExecutor: set by the recipe and the run",
    ),
    (
        "dgxcloud",
        {**CLUSTERS["dgxcloud"], "client_secret": "clear text"},
        "executor.options.client_secret: would be written to files: put it into a variable and set "
        "executor.options.client_secret=env:VARIABLE",
    ),
    (
        "dgxcloud",
        {**CLUSTERS["dgxcloud"], "client_secret": "env:NOT_SET_ANYWHERE"},
        "executor.options.client_secret=env:NOT_SET_ANYWHERE: NOT_SET_ANYWHERE is not set in the environment",
    ),
    ("docker", {"container_image": "neva", "volumes": "{"}, "executor.options.volumes={: expected list[str], "
     "written as in YAML"),
    (
        "slurm",
        {"account": "env:DGX_CLIENT_SECRET"},
        "executor.options.account=env:DGX_CLIENT_SECRET: NeMo-Run writes options of Slurm into its script",
    ),
    ("kubeflow", {}, "executor.options: kubeflow: Invalid kube-config file. No configuration found."),
]  # fmt: skip


# What a value of an option may hold: one line of UTF-8.
_TEXTS = [text for text in HOSTILE if text and all(character >= " " for character in text) and text.isprintable()]
_HOSTILE_OPTIONS = {
    "container_image": " ".join(_TEXTS),
    "container_mounts": json.dumps([f"/a {text}:/b {text}" for text in _TEXTS], ensure_ascii=False),
    "container_env": json.dumps(_TEXTS, ensure_ascii=False),
    "srun_args": json.dumps(_TEXTS, ensure_ascii=False),
}


@pytest.fixture(scope="module")
def answers(nemo, tmp_path_factory):
    """What the requests of all cases are, asked for at once: NeMo-Run takes seconds to load."""
    folder = tmp_path_factory.mktemp("requests")
    python = {"python": "/opt/venv/bin/python"}
    cases = [
        *(
            {"num_nodes": 2, "size": 6, "fields": {"backend": name, "options": options, **python}}
            for name, options in CLUSTERS.items()
        ),
        {"size": 4, "fields": {"backend": "docker", "options": {"container_image": "neva"}, **python}},
        *({"fields": {"backend": name, "options": options}} for name, options, _ in WRONG),
        {"fields": {"backend": "slurm", "options": CLUSTERS["slurm"], "env": {"HF_TOKEN": "hf_" + "abcdEFGH" * 4}}},
        {
            "fields": {"backend": "docker", "options": {"container_image": "neva"}},
            "runs_dir": str(folder / "two words"),
        },
        {"size": 3, "num_nodes": 2, "fields": {"backend": "docker", "options": {"container_image": "neva"}}},
        {"fields": {"backend": "slurm", "options": CLUSTERS["slurm"], "python": "/opt/nemo_run/bin/python"}},
        {"fields": {"backend": "slurm", "options": {**CLUSTERS["slurm"], **_HOSTILE_OPTIONS}, **python}},
    ]
    cases = [{"runs_dir": str(folder / "runs"), **case} for case in cases]
    return nemo.drive("requests", cwd=folder, cases=cases, environ={"DGX_CLIENT_SECRET": SECRET, "KUBECONFIG": "none"})


def rank_command(run_dir, nodes, processes):
    return [
        *("--nnodes", str(nodes), "--nproc-per-node", str(processes)),
        *("/opt/venv/bin/python", "-P", "-m", "executors.nemo_run.rank", run_dir),
    ]


def test_slurm(answers, tmp_path):
    answer = answers[0]
    script = answer["text"].partition("# SBATCH_SCRIPT\n#----------------\n")[2]
    (tmp_path / "job.sh").write_text(script)
    subprocess.run(["bash", "-n", tmp_path / "job.sh"], check=True)
    lines = script.splitlines()
    assert {"#SBATCH --account=vision", "#SBATCH --nodes=2", "#SBATCH --ntasks-per-node=1"} <= set(lines)
    (srun,) = [line for line in lines if "executors.nemo_run.rank" in line]
    words = shlex.split(srun)
    assert words[0] == "srun"
    run_dir = answer["run_dir"]
    assert f"{run_dir}:{run_dir}" in words[words.index("--container-mounts") + 1].split(",")
    assert set(rank_command(run_dir, 2, 6)) <= set(words)
    assert words[-5:] == rank_command(run_dir, 2, 6)[-5:]


@pytest.mark.parametrize("place", [1, 2], ids=["dgxcloud", "lepton"])
def test_clouds(answers, place):
    text = answers[place]["text"]
    command = text.partition("cmd: ")[2].partition(", executor:")[0].split()
    assert command[0] == "torchrun"
    assert set(rank_command(answers[place]["run_dir"], 2, 6)) <= set(command)
    assert SECRET not in text


def test_docker(answers):
    text = answers[3]["text"]
    run_dir = answers[3]["run_dir"]
    assert f"- {run_dir}:{run_dir}\n" in text
    assert f"- executors.nemo_run.rank\n  - {run_dir}\n" in text


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_wrong_options(answers, number):
    assert answers[4 + number] == {"error": WRONG[number][2]}


def test_what_nemo_run_would_write_down_or_mangle(answers):
    token, spaces, machines, replaced = [answer["error"] for answer in answers[-5:-1]]
    assert token == (
        "executor.env: NeMo-Run would write HF_TOKEN to files: set it where the ranks run, or take backend=local"
    )
    assert "NeMo-Run does not quote paths, and this one holds ' ': choose another one" in spaces
    assert machines.startswith("trainer.num_nodes=2: executor.backend=docker runs on one machine")
    assert replaced.startswith("'/opt/nemo_run/bin/python': NeMo-Run puts a path of its own for /nemo_run in Slurm's ")


def test_options_that_a_shell_could_act_on(answers, tmp_path):
    script = answers[-1]["text"].partition("# SBATCH_SCRIPT\n#----------------\n")[2]
    lines = ["scontrol() { echo node; }", """srun() { printf '%s\\0' "$@" >words; }""", *script.splitlines()]
    subprocess.run(["bash"], input="\n".join(lines), text=True, cwd=tmp_path, capture_output=True, check=True)
    words = (tmp_path / "words").read_text().split("\0")
    run_dir = answers[-1]["run_dir"]
    assert words[words.index("--container-image") + 1] == " ".join(_TEXTS)
    mounts = ",".join([*(f"/a {text}:/b {text}" for text in _TEXTS), f"{run_dir}:{run_dir},"])
    assert words[words.index("--container-mounts") + 1].startswith(mounts)
    assert words[words.index("--container-env") + 1] == ",".join(_TEXTS)
    start = words.index(_TEXTS[0])
    assert words[start : start + len(_TEXTS)] == _TEXTS
    assert [path.name for path in tmp_path.iterdir()] == ["words"]
