"""Conformance checks: the requirements on every executor, checked on a real one.

The tests of an executor describe it by a `Subject` and call each of `CHECKS`, which raise `AssertionError`:

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_conformance(check, tmp_path):
        check(Subject(make=MyClusterExecutor, folder=tmp_path))
"""

from executors.conformance.checks import CHECKS
from executors.conformance.hostile import HOSTILE
from executors.conformance.subject import Subject, tiny_recipe

__all__ = ["CHECKS", "HOSTILE", "Subject", "tiny_recipe"]
