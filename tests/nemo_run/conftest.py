"""A Python that has NeMo-Run: this one, or a virtual environment of its own that sees the packages of this one."""

import importlib.util
import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from executors.nemo_run.executor import INSTALL
from tests.end_to_end.world import make_world
from tests.nemo_run.world import Nemo

_INSTALL_SECONDS = 600

# What NeMo-Run needs for Kubeflow.
_KUBEFLOW = ("kubernetes==35.0.0",)

# What NeMo-Run needs of SkyPilot, to make a task: without its own requirements, of which most are for its server, and
# one is a version of click with which no transformers can be installed.
_SKYPILOT = shlex.split("""
    skypilot==0.14.1 aiosqlite==0.22.1 alembic==1.20.1 cachetools==8.0.1 casbin==1.43.0 colorama==0.4.6
    greenlet==3.5.6 ijson==3.6.0 mako==1.4.3 orjson==3.13.0 passlib==1.7.4 prettytable==3.18.0
    psycopg2-binary==2.9.13 simpleeval==1.0.8 sqlalchemy==2.1.9 sqlalchemy_adapter==1.9.0
""")


@pytest.fixture(scope="session")
def nemo(tmp_path_factory):
    """Runs programs by a Python that has NeMo-Run.

    NeMo-Run wants older versions of packages that others here use too, so it does not go into this environment.
    """
    if all(importlib.util.find_spec(name) for name in ("nemo_run", "kubernetes")):
        return Nemo(sys.prefix)
    _, _, *packages = shlex.split(INSTALL)
    return _installed(tmp_path_factory, "NeMo-Run", [sys.prefix], [*packages, *_KUBEFLOW])


@pytest.fixture(scope="session")
def nemo_sky(nemo, tmp_path_factory):
    """Runs programs by a Python that has NeMo-Run and SkyPilot."""
    return _installed(tmp_path_factory, "SkyPilot", [nemo.prefix, sys.prefix], ["--no-deps", *_SKYPILOT])


def _installed(tmp_path_factory, name, prefixes, words):
    """Return an environment with the packages that `pip install` gets as words, and those of other environments."""
    folder = tmp_path_factory.mktemp(name.lower()) / "venv"
    try:
        _install(folder, prefixes, words)
    except (OSError, subprocess.SubprocessError) as error:
        reason = f"{name} could not be installed: {error}"
        if os.environ.get("REQUIRE_NEMO_RUN") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return Nemo(folder)


def _install(folder, prefixes, words):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    folders = [sysconfig.get_path("purelib", vars={"base": str(prefix)}) for prefix in prefixes]
    lines = [f"import site; site.addsitedir({path!r})\n" for path in folders]
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (own / "zz_packages_of_the_tests.pth").write_text("".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--quiet", *words]
    done = subprocess.run(command, timeout=_INSTALL_SECONDS, stderr=subprocess.PIPE, text=True, errors="replace")
    if done.returncode:
        raise OSError(f"pip: {done.stderr.strip()[-2000:]}")


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """Data, pictures and tokenizers whose every name needs quoting."""
    return make_world(tmp_path_factory.mktemp("world"))
