"""How a run in the foreground ends for the Python code that has started it."""

import sys
from pathlib import Path

from executors.runs.standing import Standing
from neva_recipes.config import RunError
from neva_recipes.interruption import command_tells_ends
from neva_recipes.run_directory.stages import run_title
from neva_recipes.run_directory.state import State
from neva_recipes.terminal import print_line, tell

__all__ = ["conclude", "require_foreground"]


def require_foreground(*, detach: bool, check: bool) -> None:
    """Raise `RunError` if a run shall be checked whose end is not waited for."""
    if detach and check:
        raise RunError("check: with detach the run goes on after the call, so its end is not known: leave out one")


def conclude(run_dir: Path, *, is_interrupted: bool, check: bool, quiet: bool) -> None:
    """Tell Python code how a run has ended; within a command, which tells by itself, do nothing.

    Args:
        run_dir: The run directory of a run that has ended.
        is_interrupted: Whether Ctrl-C was pressed.
        check: Whether to raise an error unless the run has succeeded.
        quiet: Whether to print nothing.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
        RunError: The run has not succeeded, and `check` is set.
    """
    if command_tells_ends():
        return
    state = Standing(run_dir).state()
    has_succeeded = state.state == "succeeded" and state.exit_code == 0
    line = f"{run_title(run_dir)} succeeded: {run_dir}" if has_succeeded else _failure(run_dir, state)
    if is_interrupted:
        raise KeyboardInterrupt(line)
    if check and not has_succeeded:
        raise RunError(line)
    if quiet:
        return
    if has_succeeded or state.state == "cancelled":
        print_line(line, sys.stderr)
    else:
        tell("error", line)


def _failure(run_dir: Path, state: State) -> str:
    reason = state.reason or f"exit code {state.exit_code}"
    if state.state == "succeeded":  # it could not be started again
        return f"run {run_title(run_dir)} {reason}; it is as it was: succeeded"
    return f"run {run_title(run_dir)} {state.state}: {reason}"
