"""A job in a real container that NeMo-Run started."""

import subprocess
import sys
from pathlib import Path

import pytest

import executors
from tests.docker.conftest import engine, engine_folder, root_file_system  # noqa: F401 fixtures
from tests.nemo_run.world import contents

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]

IMAGE = "neva-nemo-run:local"
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def address(engine, root_file_system):  # noqa: F811 they are the fixtures above
    """Address of an engine with an image whose PATH leads to torchrun."""
    path = f"PATH={Path(sys.executable).parent}:/usr/bin:/bin"
    engine.command("import", "--change", f"ENV {path}", str(root_file_system), IMAGE)
    return engine.address


@pytest.mark.parametrize("code", [0, 3])
def test_exit_codes_and_logs(nemo, address, tmp_path, monkeypatch, code):
    monkeypatch.setenv("DOCKER_HOST", address)
    volumes = [ROOT, sys.prefix, tmp_path / "rank.py"]
    options = {
        "container_image": IMAGE,
        "network": "host",
        "volumes": f"[{', '.join(f'{path}:{path}:ro' for path in volumes)}]",
    }
    run = nemo.start(
        f"""
        print(os.environ["ODD"], Path("/etc/hostname").exists(), flush=True)
        sys.exit({code} * rank)
        """,
        cwd=tmp_path,
        backend="docker",
        options=options,
        python=sys.executable,
        env={"ODD": "$(touch canary) 'x'"},
    )
    assert run.wait() == code, contents(run.path / "logs").decode()
    assert executors.find_run(run.path).status().state == ("failed" if code else "succeeded")
    assert all("$(touch canary) 'x'" in line for line in run.logs(rank=1))
    left = subprocess.run(["docker", "ps", "--all", "--quiet"], capture_output=True, check=True).stdout
    assert left == b""


def test_an_image_that_is_nowhere(nemo, address, tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", address)
    (tmp_path / "data.jsonl").write_text('{"text": "one"}\n')
    words = ["gpt.pretrain", "size=tiny", "data.data_path=data.jsonl", "data.tokenizer=owner/name"]
    words += ["--executor", "nemo_run", "executor.backend=docker", "executor.options.container_image=nowhere/none:1"]
    ((code, out, err),) = nemo.drive("commands", cwd=tmp_path, cases=[words])
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert (
        "error: executor.options.container_image=nowhere/none:1: no such image here, and none can be fetched: " in err
    )
    assert not (tmp_path / "runs").exists()
