"""Finds the command that was typed, and turns errors into one line and an exit code."""

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import dropwhile
from pathlib import Path

from neva_recipes.cli.arguments import HelpShown, UsageError
from neva_recipes.cli.commands.launch import launch_command
from neva_recipes.config import UserError
from neva_recipes.interruption import ends_told_by_command
from neva_recipes.run_directory.exit_codes import EXIT_CANCELLED, EXIT_MISTAKE
from neva_recipes.terminal import OutputLost, guarded, tell

__all__ = ["COMMANDS", "WORDS", "run_command", "run_command_function"]

COMMANDS: dict[str, tuple[str, str, str]] = {
    "list": ("overview", "list_command", "recipes that can be run"),
    "fit": ("fit", "fit_command", "layouts that fit on some GPUs, fastest first"),
    "executors": ("executors", "executors_command", "where recipes can run: kinds and profiles"),
    "status": ("status", "status_command", "how a run stands, or all of them"),
    "logs": ("runs", "logs_command", "what a run has printed"),
    "cancel": ("runs", "cancel_command", "stop runs"),
    "resume": ("runs", "resume_command", "go on with a run from its newest checkpoint"),
    "rerun": ("runs", "rerun_command", "start a new run with the recipe of another"),
    "gc": ("gc", "gc_command", "what can be removed from the folder of runs"),
    "show": ("show", "show_command", "what a run really used"),
    "plot": ("plot", "plot_command", "draw losses and other metrics of runs"),
    "verify": ("models.verify", "verify_command", "whether checkpoints are as they were written"),
    "inspect": ("models.inspect", "inspect_command", "what a model on the disk is, and what it is good for"),
    "diff": ("compare", "diff_command", "what is different between recipes or runs"),
    "chat": ("models.tools", "chat_command", "ask a trained model about images"),
    "generate": ("models.tools", "generate_command", "continue texts with a trained model"),
    "evaluate": ("models.tools", "evaluate_command", "measure a trained model on held-out data"),
    "export": ("models.tools", "export_command", "write a trained model as a Hugging Face directory"),
    "convert": ("models.tools", "convert_command", "write a model in another layout"),
    "merge": ("models.tools", "merge_command", "write a model with adapters as one without"),
    "reshard": ("models.tools", "reshard_command", "write a checkpoint as another layout would"),
    "tokenizer": ("tokenizers.command", "tokenizer_command", "train, merge, compare and check tokenizers"),
    "templates": ("templates", "templates_command", "conversation templates, and what each makes of a chat"),
    "data": ("data.command", "data_command", "check and make data files"),
    "extend-vocab": ("models.extend_vocab", "extend_vocab_command", "rows for the new tokens of a tokenizer"),
    "import-nemo": ("import_nemo", "import_nemo_command", "make a recipe of a NeMo configuration"),
    "completion": ("completion", "completion_command", "complete words in bash, zsh or fish"),
}
"""The module of each command, its function, and its meaning; only the requested one is loaded."""

_HELP = "help"
_MEANINGS = {
    **{name: meaning for name, (_, _, meaning) in COMMANDS.items()},
    _HELP: "what a command or a recipe takes: nemo-run help fit",
}

WORDS = tuple(_MEANINGS)
"""The words that stand in the place of a recipe."""

_BROKEN_PIPE = 141


def run_command(argv: Sequence[str]) -> int:
    """Run the command and return its exit code: 2 for a user's mistake, the job's own code if a job failed.

    Args:
        argv: Arguments without the name of the program.
    """
    try:
        with guarded():
            return _outcome(argv)
    except OutputLost as error:
        _drop_output()
        tell("error", str(error))
        return EXIT_MISTAKE
    except BrokenPipeError:
        _drop_output()
        return _BROKEN_PIPE


def _outcome(argv: Sequence[str]) -> int:
    try:
        if any("\0" in word for word in argv):  # only another program can pass this
            raise UsageError("an argument holds a zero byte, which no name and no path can")
        _require_folder()
        with ends_told_by_command():
            code = _dispatch(argv)
    except HelpShown:
        code = 0
    except UserError as error:
        tell("error", str(error))
        code = EXIT_MISTAKE
    except KeyboardInterrupt:
        code = EXIT_CANCELLED
    sys.stdout.flush()
    return code


def _drop_output() -> None:
    """Discard what is still buffered, so that Python's own flush at the end is quiet too."""
    with contextlib.suppress(OSError):  # the stream is not a file, as in a notebook
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _require_folder() -> None:
    try:
        Path.cwd()
    except OSError:
        raise UsageError("the current folder is not there any more: cd to another one") from None


def _dispatch(argv: Sequence[str]) -> int:
    words = list(dropwhile(lambda word: word == _HELP, argv))
    if len(words) < len(argv):
        words.append("--help")
    if words and words[0] in COMMANDS:
        return run_command_function(words[0], words[1:])
    return run_command_function(None, words)


def run_command_function(name: str | None, argv: Sequence[str]) -> int:
    """Run a command without any care for its errors, and return its exit code.

    Args:
        name: Its name; `None` means the command that launches recipes.
        argv: Its arguments.
    """
    if name is None:
        return launch_command(argv, _MEANINGS)
    module, function, _ = COMMANDS[name]
    home = import_module(f"neva_recipes.cli.commands.{module}")
    command: Callable[[Sequence[str]], int] = getattr(home, function)
    return command(argv)
