"""A Python that has NeMo-Run: this one, or a virtual environment of its own that sees the packages of this one."""

import importlib.util
import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from executors.nemo_run import INSTALL
from tests.end_to_end.world import make_world
from tests.nemo_run.world import Nemo

_INSTALL_SECONDS = 240


@pytest.fixture(scope="session")
def nemo(tmp_path_factory):
    """Runs programs by a Python that has NeMo-Run.

    NeMo-Run wants older versions of packages that others here use too, so it does not go into this environment.
    """
    if importlib.util.find_spec("nemo_run") is not None:
        return Nemo(sys.prefix)
    folder = tmp_path_factory.mktemp("nemo-run") / "venv"
    try:
        _install(folder)
    except (OSError, subprocess.SubprocessError) as error:
        reason = f"NeMo-Run could not be installed: {error}"
        if os.environ.get("REQUIRE_NEMO_RUN") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return Nemo(folder)


def _install(folder):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    purelib = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    line = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    Path(purelib, "zz_packages_of_the_tests.pth").write_text(line, encoding="utf-8")
    _, _, *packages = shlex.split(INSTALL)
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", *packages]
    subprocess.run(command, check=True, timeout=_INSTALL_SECONDS, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """Data, pictures and tokenizers whose every name needs quoting."""
    return make_world(tmp_path_factory.mktemp("world"))
