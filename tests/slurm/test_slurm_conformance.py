"""The contract of executors, on a Slurm cluster."""

from functools import partial

import pytest

from executors import SlurmExecutor
from executors.conformance import CHECKS, Subject


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_slurm(check, cluster, tmp_path):
    check(Subject(make=partial(SlurmExecutor, partition="main", gpu_request="none"), folder=tmp_path, patience=90.0))
