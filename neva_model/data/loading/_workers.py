"""Set-up of a data-loading process: it ignores the signals of its rank, and ends with it."""

import ctypes
import signal
import sys

__all__ = ["prepare_worker"]

_PR_SET_PDEATHSIG = 1


def prepare_worker(worker: int) -> None:
    """Set up a data-loading process.

    A forked process inherits its rank's signal handlers. Slurm sends its warnings (SIGUSR1, SIGUSR2), and a terminal
    its Ctrl-C, to every process of the job: the rank decides what they mean, and ends its workers itself.

    Args:
        worker: Number of the worker, which PyTorch passes.
    """
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    # PyTorch ends a worker with this signal.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        # PyTorch's own watchdog notices a killed parent after five seconds, and only between two samples.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
