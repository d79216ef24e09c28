"""A request to stop: SIGUSR2, which waits at every rank until a step has ended.

The signal stays blocked for the whole life of a rank and is only looked for, so it interrupts nothing and a second one
changes nothing. Whatever a rank starts (data loaders, writers of checkpoints, services of loggers) inherits the block.
"""

import os
import signal
from multiprocessing import resource_tracker

__all__ = ["EXIT_STOPPED", "hold_stop_signal", "is_stop_requested"]

EXIT_STOPPED = os.EX_TEMPFAIL
"""75, which sysexits.h has for "try again later": the run was stopped on request and can go on."""


def hold_stop_signal() -> None:
    """Keep SIGUSR2 waiting in this process and those it will start; to be called before there are other threads.

    Where whoever has started this process holds SIGTERM back, because it asks for the stop itself, that stays so.
    """
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    if signal.SIGTERM in held:
        # multiprocessing lets SIGTERM through when it starts its tracker, as it would for the first checkpoint.
        handler = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        signal.signal(signal.SIGTERM, handler)


def is_stop_requested() -> bool:
    """Return whether this process has got SIGUSR2."""
    return signal.SIGUSR2 in signal.sigpending()
