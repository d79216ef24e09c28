"""The entry point of `nemo-run`: finds the command, and turns what goes wrong into one line and an exit code."""

import io
import os
import sys
from collections.abc import Callable, Sequence

from neva_recipes.cli._arguments import HelpShown
from neva_recipes.cli._compare import diff_command
from neva_recipes.cli._executors import executors_command
from neva_recipes.cli._fit import fit_command
from neva_recipes.cli._gc import gc_command
from neva_recipes.cli._import_nemo import import_nemo_command
from neva_recipes.cli._launch import launch_command
from neva_recipes.cli._overview import list_command
from neva_recipes.cli._runs import cancel_command, logs_command, rerun_command, resume_command
from neva_recipes.cli._show import show_command
from neva_recipes.cli._status import status_command
from neva_recipes.cli._tools import chat_command, evaluate_command, export_command
from neva_recipes.config import UserError

__all__ = ["main"]

_COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "list": (list_command, "recipes that can be run"),
    "fit": (fit_command, "layouts that fit on some GPUs, fastest first"),
    "executors": (executors_command, "where recipes can run: kinds and profiles"),
    "status": (status_command, "how a run stands, or all of them"),
    "logs": (logs_command, "what a run has printed"),
    "cancel": (cancel_command, "stop runs"),
    "resume": (resume_command, "go on with a run from its newest checkpoint"),
    "rerun": (rerun_command, "start a new run with the recipe of another"),
    "gc": (gc_command, "what can be removed from the folder of runs"),
    "show": (show_command, "what a run really used"),
    "diff": (diff_command, "what is different between recipes or runs"),
    "chat": (chat_command, "ask a trained model about images"),
    "evaluate": (evaluate_command, "measure a trained model on held-out data"),
    "export": (export_command, "write a trained model as a Hugging Face directory"),
    "import-nemo": (import_nemo_command, "make a recipe of a NeMo configuration"),
}

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


def _dispatch(argv: Sequence[str]) -> int:
    if argv and argv[0] in _COMMANDS:
        return _COMMANDS[argv[0]][0](argv[1:])
    return launch_command(argv, {name: meaning for name, (_, meaning) in _COMMANDS.items()})


if __name__ == "__main__":
    sys.exit(main())
