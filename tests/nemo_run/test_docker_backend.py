"""A job in a real container that NeMo-Run started."""

import sys
from pathlib import Path

import pytest

from tests.docker.engines import engine, engine_folder, root_file_system  # noqa: F401 fixtures
from tests.nemo_run.world import contents
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]

IMAGE = "neva-nemo-run:local"
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def address(engine, root_file_system):  # noqa: F811 they are the fixtures above
    """Address of an engine with an image whose PATH leads to torchrun."""
    path = f"PATH={Path(sys.executable).parent}:/usr/bin:/bin"
    engine.command("import", "--change", f"ENV {path}", str(root_file_system), IMAGE)
    return engine.address


def test_exit_codes_and_logs(nemo, engine, address, tmp_path, monkeypatch):  # noqa: F811 the fixture
    monkeypatch.setenv("DOCKER_HOST", address)
    volumes = [ROOT, sys.prefix, tmp_path / "rank.py"]
    options = {
        "container_image": IMAGE,
        "network": "host",
        "volumes": f"[{', '.join(f'{path}:{path}:ro' for path in volumes)}]",
    }
    fields = {"backend": "docker", "options": options, "python": sys.executable}
    odd = {"ODD": "$(touch canary) 'x'"}
    runs = nemo.start_all(
        """
        print(os.environ["ODD"], Path("/etc/hostname").exists(), flush=True)
        sys.exit(int(os.environ["CODE"]) * rank)
        """,
        [{"fields": {**fields, "env": {**odd, "CODE": str(code)}}} for code in (0, 3)],
        cwd=tmp_path,
    )
    for run, code, state in zip(runs, (0, 3), ("succeeded", "failed"), strict=True):
        assert run.wait() == code, contents(run.path / "logs").decode()
        assert run.status().state == state
        assert all("$(touch canary) 'x'" in line for line in run.logs(rank=1))
    wait_for(lambda: engine.containers() == [])  # the engine removes them by itself
