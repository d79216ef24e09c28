"""A real Docker engine on this machine, an image made without a registry, and jobs for it; shared by the tests."""

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.docker.world import Engine, Place
from tests.required_programs import require_programs
from tests.waiting import wait_for

SCRIPTS = Path(__file__).parent.parent / "testbed" / "docker"
PROGRAMS = ("dockerd", "docker", "containerd", "runc")


@pytest.fixture(scope="session")
def engine_folder():
    """A folder with a short name, for the engine's socket; without what an engine needs, the test is skipped."""
    require_programs("a Docker engine", PROGRAMS, "REQUIRE_DOCKER")
    with tempfile.TemporaryDirectory(prefix="docker-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def root_file_system(engine_folder):
    """What the image is made of: a Python of this machine."""
    packed = engine_folder / "root.tar"
    subprocess.run([SCRIPTS / "rootfs.sh", sys.executable, packed], check=True, timeout=300)
    return packed


@contextlib.contextmanager
def running(engine, root_file_system):
    """Run an engine that has the image."""
    try:
        engine.start()
        engine.command("import", str(root_file_system), Place.IMAGE)
        yield engine
    finally:
        engine.stop()


@pytest.fixture(scope="session")
def engine(engine_folder, root_file_system):
    """A running engine that has the image."""
    with running(Engine(engine_folder / "engine"), root_file_system) as engine:
        yield engine


@pytest.fixture(scope="session")
def gpu_engine(engine_folder, root_file_system):
    """Another one, which takes `nvidia_hook.py` for the hook of the NVIDIA Container Toolkit."""
    hook = engine_folder / "programs" / "nvidia-container-runtime-hook"
    hook.parent.mkdir()
    hook.write_text(f"#!{sys.executable}\n{Path(__file__).with_name('nvidia_hook.py').read_text()}")
    hook.chmod(0o755)
    with running(Engine(engine_folder / "gpus", hook.parent), root_file_system) as engine:
        yield engine


@pytest.fixture
def place(engine, tmp_path, monkeypatch):
    """Makes jobs for the engine whose processes are user 1000."""
    yield from _place(engine, tmp_path, monkeypatch)


@pytest.fixture
def gpu_place(gpu_engine, tmp_path, monkeypatch):
    """Makes jobs for the engine with GPUs, as it believes."""
    yield from _place(gpu_engine, tmp_path, monkeypatch)


def _place(engine, folder, monkeypatch):
    # The docker command hands on what its user has set: proxies to containers, another engine, certificates.
    for name in [*os.environ]:
        if name.lower().endswith("_proxy") or name in ("DOCKER_CERT_PATH", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DOCKER_CONFIG", str(folder / "of no user"))
    monkeypatch.setenv("DOCKER_HOST", engine.address)
    before = set(engine.containers())
    yield Place(engine, folder)
    try:
        wait_for(lambda: set(engine.containers()) <= before)
    finally:
        for name in set(engine.containers()) - before:
            engine.command("rm", "--force", name)
