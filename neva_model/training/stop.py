"""The request to stop: SIGUSR2, which waits at every rank until a step has ended.

The signal stays blocked for the whole life of a rank and is only polled, so it interrupts nothing, and a second one
changes nothing. Processes that a rank starts (data loaders, writers of checkpoints, services of loggers) inherit the
block.
"""

import signal
from multiprocessing import resource_tracker

from neva_recipes.run_directory.exit_codes import STOP_SIGNAL

__all__ = ["hold_stop_signal", "is_stop_requested"]


def hold_stop_signal() -> None:
    """Block SIGUSR2 in this process and those it will start; call it before there are other threads.

    If the parent process has blocked SIGTERM, because it requests the stop itself, SIGTERM stays blocked.
    """
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {STOP_SIGNAL})
    if signal.SIGTERM in held:
        # multiprocessing unblocks SIGTERM when it starts its tracker, as it would for the first checkpoint.
        handler = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        signal.signal(signal.SIGTERM, handler)


def is_stop_requested() -> bool:
    """Return whether this process has received SIGUSR2."""
    return STOP_SIGNAL in signal.sigpending()
