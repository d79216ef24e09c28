"""The contract of executors, on a Docker engine."""

import pytest

from executors.conformance import CHECKS, Subject
from tests.executors.test_conformance import TWO_NODES


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_docker(check, place):
    check(Subject(make=place.executor, folder=place.folder, refused=TWO_NODES, in_folder=False))
