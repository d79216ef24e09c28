"""The contract of executors, on a real cluster."""

import functools

import pytest

from executors.conformance import CHECKS, Subject
from executors.slurm import SlurmExecutor

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check, cluster, tmp_path):
    check(Subject(make=functools.partial(SlurmExecutor, gpu_request="none"), folder=tmp_path, patience=90))
