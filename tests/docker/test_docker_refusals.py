"""What cannot be started: one line that says why, nothing started, nothing written."""

import dataclasses
import os
import subprocess
import sys

import pytest

import executors
from executors.docker.engine import connect
from neva_recipes.cli.main import main
from neva_recipes.config import UserError
from tests.docker.world import Place
from tests.end_to_end.world import NEMO_RUN

pytestmark = pytest.mark.multiprocess

MISTAKES = {
    "no image": ({"image": None}, "executor.image is not set: add executor.image=NAME"),
    "unknown image": (
        {"image": "nowhere/none:1"},
        "executor.image=nowhere/none:1: no such image here, and none is fet",
    ),
    "image not in a registry": ({"image": "nowhere/none:1", "pull": True}, "executor.image=nowhere/none:1: cannot be"),
    "image as an option": ({"image": "--privileged"}, "executor.image='--privileged': expected the name of an image"),
    "no GPU runtime": ({"gpus": "all"}, "executor.gpus: the engine has no runtime for GPUs"),
    "one GPU": ({"gpus": 1}, "executor.gpus: the engine has no runtime for GPUs"),
    "GPUs by name": ({"gpus": "device=0,1"}, "executor.gpus: the engine has no runtime for GPUs"),
    "wrong GPUs": ({"gpus": "some"}, "executor.gpus='some': expected"),
    "no GPU": ({"gpus": 0}, "executor.gpus=0: expected"),
    "missing source": ({"mounts": ["/no/such:/data"]}, "'/no/such' is not there on the machine of the engine"),
    "mount without target": (
        {"mounts": ["/data"]},
        "executor.mounts: '/data': expected SOURCE:TARGET[:ro,z,Z], and the target",
    ),
    "relative target": (
        {"mounts": ["/data:data"]},
        "executor.mounts: '/data:data': expected SOURCE:TARGET[:ro,z,Z], and the target",
    ),
    "home of nobody": (
        {"mounts": ["~nobody-here/x:/x"]},
        "executor.mounts: '~nobody-here/x:/x': there is no such user",
    ),
    "two mounts at one place": (
        {"mounts": ["/usr:/x", "/etc:/x:ro"]},
        "executor.mounts: '/etc:/x:ro': '/usr:/x' is at /x already: leave one of them out",
    ),
    "unknown network": ({"network": "nowhere"}, "executor.network=nowhere: the engine has no such network"),
    "unknown Python": ({"python": "/opt/python"}, f"executor.image={Place.IMAGE} has no program /opt/python"),
    "no code": ({"mount_code": False}, f"executor.image={Place.IMAGE}: its Python has no package executors"),
    "little memory": ({"memory": "1m"}, "executor.memory: Minimum memory limit"),
    "memory without unit": ({"memory": "16"}, "executor.memory='16': expected a size with its unit, such as 16g"),
    "many cores": ({"cpus": 10000.0}, "executor.cpus: expected 0.01 to"),
    "wrong limit": ({"ulimits": ["memlock"]}, "executor.ulimits"),
    "user by name": ({"user": "root"}, "executor.user='root': expected numbers of user and group, such as 1000:1000"),
    "variable not there": ({"pass_env": ["NOT_THERE"]}, "executor.pass_env: NOT_THERE is not set"),
    "no socket": ({"docker_host": "unix:///no/such.sock"}, "Docker engine at unix:///no/such.sock: there is none"),
    "nobody listens": ({"docker_host": "tcp://127.0.0.1:9"}, "Docker engine at tcp://127.0.0.1:9 does not answer"),
    "no address": ({"docker_host": "nonsense://x"}, "Docker engine at nonsense://x cannot be asked: Invalid bind addr"),
}


def refusal(place, **fields):
    """Return the message with which a job is refused; nothing is left of it."""
    since = len(place.engine.containers())
    with pytest.raises(UserError) as caught:
        executors.start_job(place.job("pass", **fields))
    assert not place.runs_dir.exists()
    assert len(place.engine.containers()) == since
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(place, mistake):
    fields, expected = MISTAKES[mistake]
    assert expected in refusal(place, **fields)


def test_two_machines(place):
    with pytest.raises(UserError, match=r"trainer.num_nodes=2: the docker executor runs on one machine"):
        place.executor().check(dataclasses.replace(place.job("pass").layout, num_nodes=2))


def test_data_that_the_user_cannot_read(place, tmp_path):
    hidden = tmp_path / "hidden"
    hidden.write_text("")
    hidden.chmod(0o600)
    message = refusal(place, mounts=[f"{hidden}:/hidden:ro"])
    assert "'/hidden' cannot be read there by the user 1000:1000" in message


@pytest.fixture
def as_user(monkeypatch):
    """This process has no more rights than user 1000 has, and knows no engine."""
    connect.cache_clear()
    os.setegid(1000)
    os.seteuid(1000)
    yield
    os.seteuid(0)
    os.setegid(0)


def test_a_user_who_may_not_ask_the_engine(place, as_user):
    with pytest.raises(UserError, match="permission denied: only root and members of the group of its socket"):
        place.executor().require_ready(place.job("pass"))


def test_another_user(place, as_user):
    with pytest.raises(UserError, match=r"only root can run as others than itself.* and it is 1000:1000"):
        place.job("pass", user="1001")


def test_the_package_is_missing(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "docker", None)
    message = refusal(place, docker_host="unix:///another.sock")
    assert message == "the docker executor needs the Python package docker: pip install 'neva-recipes[docker]'"


@pytest.fixture
def words(tmp_path, monkeypatch):
    """A command that trains in a container of an image that is here."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.jsonl").write_text('{"text": "one"}\n')
    words = [
        "gpt.pretrain",
        "size=tiny",
        "data.data_path=data.jsonl",
        "data.tokenizer=owner/name",
        "--executor",
        "docker",
    ]
    return [*words, f"executor.image={Place.IMAGE}", "executor.mount_code=true", "--runs-dir", "runs"]


COMMANDS = {
    "no image": (["executor.image=none"], "executor.image is not set: add executor.image=NAME"),
    "unknown image": (["executor.image=nowhere/none:1"], "executor.image=nowhere/none:1: no such image here"),
    "no engine": (
        ["executor.docker_host=unix:///no/such.sock"],
        "Docker engine at unix:///no/such.sock: there is none",
    ),
    "too many GPUs": (["executor.gpus=8"], "executor.gpus: the engine has no runtime for GPUs"),
    "too many cores": (["executor.cpus=10000"], "executor.cpus: expected 0.01 to"),
    "two machines": (["trainer.num_nodes=2"], "trainer.num_nodes=2: the docker executor runs on one machine"),
    "unwritable run directory": (
        ["--runs-dir", "/dev/null/runs"],
        "/dev/null/runs: cannot write a run directory: Not a",
    ),
    "missing source": (["executor.mounts=/no/such:/data"], "'/no/such' is not there on the machine of the engine"),
    "unknown run": (["model.language.from_pretrained=./runs/unknown"], "./runs/unknown: no such file or folder"),
    "unknown field": (["executor.imgae=x"], "executor.imgae: no such field (did you mean executor.image?)"),
    "a name with a slash": (["--name", "a/b"], "name='a/b': a run's name cannot hold '/'"),
}


@pytest.mark.parametrize("mistake", COMMANDS)
def test_the_command_refuses(place, words, tmp_path, capfd, mistake):
    more, message = COMMANDS[mistake]
    since = len(place.engine.containers())
    assert main([*words, "trainer.accelerator=cpu", *more]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "runs").exists()
    assert len(place.engine.containers()) == since


def test_the_command(place, words, tmp_path):
    """A mistake ends the real command with 2, and a dry run needs no engine."""

    def command(*more, **env):
        return subprocess.run(
            [NEMO_RUN, *words, *more],
            cwd=tmp_path,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    done = command("executor.image=nowhere/none:1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: executor.image=nowhere/none:1: no such image here")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()
    planned = command("--dry-run", DOCKER_HOST="unix:///no/such.sock")
    assert planned.returncode == 0, planned.stderr
    assert "\n  docker run --rm" in planned.stdout
