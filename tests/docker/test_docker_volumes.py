"""Volumes, labels and contexts on a real engine, beside what the docker command does with the same words."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from executors import plan_job, start_job
from executors.docker.contexts import certificates_of
from executors.docker.engine import engine_address
from executors.docker.executor import DockerExecutor
from neva_recipes.config import RunError
from tests.executors.executor_jobs import make_recipe
from tests.waiting import wait_for

PRINT = "print((Path('/there') / 'note').read_text(), os.access('/there', os.W_OK))"


@pytest.fixture
def volume(place):
    """A volume of the engine with a note in it."""
    place.engine.command("volume", "create", "caches")
    folder = Path(place.engine.command("volume", "inspect", "caches", "--format", "{{.Mountpoint}}").strip())
    (folder / "note").write_text("kept by the engine")
    folder.chmod(0o777)
    yield "caches"
    wait_for(lambda: not place.engine.containers())
    place.engine.command("volume", "rm", "--force", "caches")


@pytest.mark.parametrize(("options", "writable"), [("", True), (":ro", False), (":ro,z", False), (":Z", True)])
def test_a_volume(place, volume, options, writable):
    run = place.start(PRINT, mounts=[f"{volume}:/there{options}"])
    assert run.wait() == 0, run.status()
    assert f"kept by the engine {writable}" in (run.path / "logs" / "rank-0.log").read_text()


def test_a_volume_that_is_not_there_is_not_made(place, monkeypatch, tmp_path):
    """Nor is a folder of that name taken for it: the docker command would not either."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    with pytest.raises(
        RunError, match=r"the Docker engine has no volume data: make it \(.*\), or write ./data for a fol"
    ):
        place.start("pass", mounts=["data:/data"])
    assert "data" not in place.engine.command("volume", "ls", "--quiet").split()
    (tmp_path / "data" / "note").write_text("of this folder")
    run = place.start(PRINT, mounts=["./data:/there:ro"])
    assert run.wait() == 0, run.status()
    assert "of this folder False" in (run.path / "logs" / "rank-0.log").read_text()


@pytest.mark.parametrize("options", ["z", "Z", "ro,z", "rw,Z"])
def test_labels_reach_the_engine(place, tmp_path, options):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "note").write_text("here")
    mount = f"{tmp_path / 'data'}:/there:{options}"
    job = place.job(PRINT + "\nwait('go')", mounts=[mount])
    told = options.removeprefix("rw,")
    assert f"--volume={mount.removesuffix(options)}{told}" in job.script()
    run = start_job(job, detach=True)
    container = place.container(run)
    try:
        assert place.engine.inspect(container)["HostConfig"]["Binds"] == [f"{tmp_path / 'data'}:/there:{told}"]
    finally:
        (run.path / "go").touch()
    assert run.wait() == 0, run.status()


def test_a_folder_with_a_label_that_is_not_there_is_not_made(place, tmp_path):
    with pytest.raises(
        RunError, match=r"is not there on the machine of the engine, and is to be mounted: see executor.mo"
    ):
        place.start("pass", mounts=[f"{tmp_path / 'missing'}:/there:z"])
    assert not (tmp_path / "missing").exists()


def docker(*words):
    """Return what the docker command says with the environment as it is."""
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout.strip()


def test_the_engine_is_the_one_of_the_docker_command(place, tmp_path, monkeypatch):
    """DOCKER_HOST, DOCKER_CONTEXT, the context in use, and nothing, in the order of the command itself."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    address = os.environ["DOCKER_HOST"]
    monkeypatch.delenv("DOCKER_HOST")
    docker("context", "create", "ours", "--docker", f"host={address}")
    docker("context", "create", "other", "--docker", "host=tcp://192.0.2.1:2375")

    def by_the_command():
        found = json.loads(docker("context", "inspect"))[0]
        return found["Endpoints"]["docker"]["Host"]

    assert engine_address(None) == by_the_command() == "unix:///var/run/docker.sock"
    docker("context", "use", "other")
    assert engine_address(None) == by_the_command() == "tcp://192.0.2.1:2375"
    monkeypatch.setenv("DOCKER_CONTEXT", "ours")
    assert engine_address(None) == by_the_command() == address
    run = place.start("print('in the context')")
    assert run.wait() == 0 and run.status().state == "succeeded"
    assert json.loads((run.path / "state.json").read_text())["supervisor"]["docker_host"] == address
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert engine_address(None) == "unix:///var/run/docker.sock"
    monkeypatch.setenv("DOCKER_CONTEXT", "nowhere")
    with pytest.raises(
        RunError, match=r"^DOCKER_CONTEXT=nowhere: there is no Docker context 'nowhere' with an engine: `d"
    ):
        engine_address(None)
    monkeypatch.setenv("DOCKER_HOST", "unix:///elsewhere.sock")
    assert engine_address(None) == "unix:///elsewhere.sock"
    assert engine_address(address) == address


def test_certificates_of_a_context(engine_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_CERT_PATH", raising=False)
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    request = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        key,
        "-out",
        cert,
        "-subj",
        "/CN=x",
    ]
    subprocess.run(request, check=True, capture_output=True)
    files = f"ca={cert},cert={cert},key={key}"
    docker("context", "create", "safe", "--docker", f"host=tcp://192.0.2.1:2376,{files}")
    found = certificates_of("tcp://192.0.2.1:2376")
    assert found["DOCKER_TLS_VERIFY"] == "1"
    assert sorted(path.name for path in Path(found["DOCKER_CERT_PATH"]).iterdir()) == ["ca.pem", "cert.pem", "key.pem"]
    assert certificates_of("tcp://192.0.2.2:2376") == certificates_of("unix:///a.sock") == {}


def test_a_damaged_file_of_dockers(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RunError, match=r"config.json: cannot be read as a file of Docker's: "):
        plan_job(make_recipe(accelerator="cpu"), DockerExecutor(image="x"), runs_dir=tmp_path)
