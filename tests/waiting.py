"""Waiting for what another process does."""

import time

__all__ = ["wait_for"]

PATIENCE = 300.0
"""Seconds; a machine that has other things to do is slow, and only a failing test waits so long."""


def wait_for(condition, patience=PATIENCE):
    """Return the first true value of `condition()`."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {patience} s in vain"
        time.sleep(0.02)
    return value
