"""Programs that a real Slurm or Docker needs here; without them its tests are skipped, or fail where they must run."""

import os
import shutil

import pytest

__all__ = ["require_programs"]


def require_programs(what, programs, variable):
    """Skip the test unless programs are here and this user is root; fail if a variable says that it must run.

    Args:
        what: What needs them, for the reason.
        programs: Their names.
        variable: Environment variable that is 1 where the test must run.
    """
    path = f"/usr/sbin:/sbin:{os.environ['PATH']}"
    missing = [name for name in programs if shutil.which(name, path=path) is None]
    if os.geteuid() != 0:
        missing.append("to be root")
    if missing:
        reason = f"{what} needs {', '.join(missing)}"
        if os.environ.get(variable) == "1":
            pytest.fail(reason)
        pytest.skip(reason)
