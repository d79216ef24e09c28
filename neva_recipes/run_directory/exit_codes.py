"""The exit codes of ranks and runs, and the stop signal."""

import os
import signal

__all__ = [
    "CAUSES",
    "EXIT_CANCELLED",
    "EXIT_MISTAKE",
    "EXIT_STOPPED",
    "STOPPED",
    "STOP_SIGNAL",
    "exit_code_of",
    "exit_code_of_signal",
]

EXIT_MISTAKE = 2
"""A mistake of the user, in the command line or in what a run was given; argparse has the same."""

EXIT_CANCELLED = 130
"""The run was cancelled; the exit code that a shell has for Ctrl-C."""

EXIT_STOPPED = os.EX_TEMPFAIL
"""75, "try again later" in sysexits.h: the run was stopped on request and can go on."""

STOPPED = "stopped on request"
"""The reason in the state of a run whose ranks were asked to stop."""

STOP_SIGNAL = signal.SIGUSR2
"""Asks a rank to save after the current step and to end with EXIT_STOPPED."""

CAUSES = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS)
"""Signals that do not kill a rank merely because another rank has died: they are a cause and not a consequence."""


def exit_code_of(return_code: int) -> int:
    """Return the exit code that a shell has for a process.

    Args:
        return_code: Exit code as in `subprocess`: the negative number of a signal that has killed the process.
    """
    return return_code if return_code >= 0 else exit_code_of_signal(-return_code)


def exit_code_of_signal(number: int) -> int:
    """Return the exit code that a shell has for a process killed by a signal."""
    return 128 + number
