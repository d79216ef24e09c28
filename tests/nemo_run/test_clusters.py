"""Jobs of two machines that NeMo-Run started on a real Slurm cluster, by Kubernetes' own client, and for SkyPilot."""

import json
import os
import shlex
import signal
import subprocess

import pytest
import yaml

from tests.end_to_end.world import HOSTILE
from tests.nemo_run.kubernetes import Cluster
from tests.nemo_run.test_runs import processes_of
from tests.nemo_run.world import contents
from tests.slurm.clusters import cluster, cluster_folder  # noqa: F401 fixtures
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]

PROGRAM = """
names = ("ODD", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
(run_dir / f"seen-{rank}.json").write_text(json.dumps({name: os.environ[name] for name in names}))
if os.environ.get("FAILS") == str(rank):
    sys.exit(7)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
signal.signal(signal.SIGUSR2, lambda *_: sys.exit(75))
(run_dir / f"up-{rank}").touch()
time.sleep(600)
"""

ODD = {"ODD": HOSTILE + "\n$(PET_NODE_RANK)${head_node_ip}"}


def case(name, backend, options, **env):
    return {"name": name, "size": 1, "num_nodes": 2, "fields": {"backend": backend, "options": options, "env": env}}


def seen(run):
    return [json.loads((run.path / f"seen-{rank}.json").read_text()) for rank in range(2)]


def expected_of_rank(number):
    return {"NODE_RANK": str(number), "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", **ODD}


@pytest.fixture
def kubernetes(nemo, tmp_path, monkeypatch):
    environ = {**os.environ, "PATH": nemo.path, "OMP_NUM_THREADS": "1"}
    cluster = Cluster(environ)  # noqa: F811 another one
    (tmp_path / "kubeconfig").write_text(cluster.kubeconfig)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    yield cluster
    cluster.close()


def test_kubeflow(nemo, kubernetes, tmp_path):
    options = {"image": "neva", "volume_mounts": "[{name: data, mountPath: /data}]"}
    cases = [case(name, "kubeflow", options, **ODD) for name in ("Stopped_1", "cancelled")]
    stopped, cancelled = nemo.start_all(PROGRAM, cases, cwd=tmp_path)
    wait_for(lambda: len(list((tmp_path / "runs").glob("*/up-*"))) == 4)
    os.kill(json.loads((stopped.path / "state.json").read_text())["supervisor"]["pid"], signal.SIGUSR2)
    cancelled.cancel()
    assert (cancelled.status().state, cancelled.wait()) == ("cancelled", 130)
    assert stopped.wait() == 75, contents(stopped.path / "logs").decode()
    for run in (stopped, cancelled):
        assert seen(run) == [expected_of_rank(0), expected_of_rank(1)]
        assert processes_of(run) == []
    (name,) = kubernetes.deleted
    assert name.startswith("cancelled-")
    ((name, body),) = kubernetes.jobs.items()
    assert name.startswith("stopped-1-")
    (override,) = body["spec"]["podTemplateOverrides"]
    assert override["spec"]["containers"] == [
        {"name": "node", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    ]


def test_slurm(nemo, cluster, tmp_path):  # noqa: F811 the fixture
    options = {"account": "lab", "partition": "main", "time": "00:10:00"}
    later = {**options, "additional_parameters": "{begin: now+1hour}"}
    cases = [case("failing", "slurm", options, FAILS="1", **ODD), case("waiting", "slurm", later)]
    failing, waiting = nemo.start_all(PROGRAM, cases, cwd=tmp_path)
    wait_for(lambda: waiting.status().state == "queued")
    assert waiting.status().reason == "waits for slurm"
    assert jobs_of(waiting) == ["PENDING"]
    waiting.cancel()
    assert (waiting.status().state, waiting.wait()) == ("cancelled", 130)
    wait_for(lambda: jobs_of(waiting) == [])
    assert failing.wait() == 7, contents(failing.path).decode(errors="replace")
    assert (failing.status().state, failing.status().reason) == ("failed", "rank 1: exited with code 7")
    assert seen(failing) == [expected_of_rank(0), expected_of_rank(1)]
    wait_for(lambda: jobs_of(failing) == [])
    assert processes_of(failing) == []


def jobs_of(run):
    command = ["squeue", "--noheader", "--format", "%T", "--states", "PD,R,CG", "--name", f"{run.name}.ranks"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_skypilot(nemo_sky, tmp_path):
    options = {"infra": "k8s", "gpus": "H100", "gpus_per_node": "8", "container_image": "neva", "autodown": "true"}
    python = "/opt/venv/bin/python"
    fields = {"backend": "skypilot", "options": options, "python": python}
    job = {"size": 6, "num_nodes": 2, "runs_dir": str(tmp_path / "runs"), "fields": fields}
    few = {**job, "fields": {**fields, "options": {"gpus": "H100"}}}
    answer, one_each = nemo_sky.drive("requests", cwd=tmp_path, cases=[job, few])
    assert yaml.safe_load(one_each["text"])["resources"]["accelerators"] == {"H100": 6}
    task = yaml.safe_load(answer["text"])
    assert task["num_nodes"] == 2
    assert (task["resources"]["infra"], task["resources"]["accelerators"]) == ("kubernetes", {"H100": 8})
    assert task["resources"]["image_id"] == {None: "docker:neva"}
    assert set(task["file_mounts"]) == {"/nemo_run"}

    # What SkyPilot runs on the second machine.
    variables = {"SKYPILOT_NODE_IPS": "10.0.0.7\n10.0.0.8", "SKYPILOT_NODE_RANK": "1", "PATH": os.environ["PATH"]}
    script = """torchrun() { printf '%s\\n' "$@" >words; }\n""" + task["run"].replace("cd /nemo_run/code\n", "")
    subprocess.run(["bash", "-c", script], env=variables, cwd=tmp_path, capture_output=True, check=True)
    words = (tmp_path / "words").read_text().splitlines()
    endpoint = words[words.index("--rdzv-endpoint") + 1]
    assert endpoint.startswith("10.0.0.7:")
    assert words[words.index("--node-rank") + 1] == "1"
    assert words[words.index("--nnodes") + 1 : words.index("--nnodes") + 4] == ["2", "--nproc-per-node", "6"]
    assert words[-5:] == [python, *shlex.split("-P -m executors.nemo_run.rank"), answer["run_dir"]]

    # NeMo-Run sends the git repository that it is called in, and fails outside of one.
    assert nemo_sky.drive("packed", cwd=tmp_path, **job) == []
