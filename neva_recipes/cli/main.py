"""The entry point of `nemo-run`: finds the command, and turns what goes wrong into one line and an exit code."""

import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from neva_recipes.cli._arguments import HelpShown, UsageError
from neva_recipes.cli._launch import launch_command
from neva_recipes.config import UserError

__all__ = ["main"]

_COMMANDS: dict[str, tuple[str, str, str]] = {
    "list": ("_overview", "list_command", "recipes that can be run"),
    "fit": ("_fit", "fit_command", "layouts that fit on some GPUs, fastest first"),
    "executors": ("_executors", "executors_command", "where recipes can run: kinds and profiles"),
    "status": ("_status", "status_command", "how a run stands, or all of them"),
    "logs": ("_runs", "logs_command", "what a run has printed"),
    "cancel": ("_runs", "cancel_command", "stop runs"),
    "resume": ("_runs", "resume_command", "go on with a run from its newest checkpoint"),
    "rerun": ("_runs", "rerun_command", "start a new run with the recipe of another"),
    "gc": ("_gc", "gc_command", "what can be removed from the folder of runs"),
    "show": ("_show", "show_command", "what a run really used"),
    "diff": ("_compare", "diff_command", "what is different between recipes or runs"),
    "chat": ("_tools", "chat_command", "ask a trained model about images"),
    "evaluate": ("_tools", "evaluate_command", "measure a trained model on held-out data"),
    "export": ("_tools", "export_command", "write a trained model as a Hugging Face directory"),
    "import-nemo": ("_import_nemo", "import_nemo_command", "make a recipe of a NeMo configuration"),
}
"""Of each command the module here, its function, and its meaning; only the one that is asked for is loaded."""

_USER_ERROR, _INTERRUPTED, _BROKEN_PIPE = 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 2 for a user's mistake, a job's own code when it failed.

    Args:
        argv: Arguments; none means those of the process.
    """
    arguments = sys.argv[1:] if argv is None else argv
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name the terminal cannot show is no reason to stop
    try:
        _require_folder()
        code = _dispatch(arguments)
        sys.stdout.flush()
    except HelpShown:
        return 0
    except UserError as error:
        print("error:", " ".join(str(error).splitlines()), file=sys.stderr)
        return _USER_ERROR
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough. What is still buffered goes nowhere, so that Python's own flush is quiet too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    return code


def _require_folder() -> None:
    try:
        Path.cwd()
    except OSError:
        raise UsageError("the current folder is not there any more: cd to another one") from None


def _dispatch(argv: Sequence[str]) -> int:
    if argv and argv[0] in _COMMANDS:
        module, function, _ = _COMMANDS[argv[0]]
        command: Callable[[Sequence[str]], int] = getattr(import_module(f"neva_recipes.cli.{module}"), function)
        return command(argv[1:])
    return launch_command(argv, {name: meaning for name, (_, _, meaning) in _COMMANDS.items()})


if __name__ == "__main__":
    sys.exit(main())
