"""The contract of executors, where NeMo-Run starts the ranks."""

import pytest

from executors.conformance import CHECKS

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]


@pytest.mark.parametrize("check", [check.__name__ for check in CHECKS])
def test_nemo_run(check, nemo, tmp_path):
    for name in ("jobs", "temporary"):
        (tmp_path / name).mkdir()
    environ = {"TMPDIR": str(tmp_path / "temporary")}
    nemo.drive("conform", cwd=tmp_path, check=check, folder=str(tmp_path / "jobs"), environ=environ)
