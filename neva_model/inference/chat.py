"""`nemo-run chat`: questions from the command line, a terminal or a pipe, answers as they are written."""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neva_model.inference.options import Sampling, conv_template_named
from neva_model.startup import prepare_command
from neva_recipes.config import UserError

if TYPE_CHECKING:
    from neva_model.inference.session import Session

__all__ = ["main"]

_COMMANDS = "/image FILE begins a conversation about an image, /reset one without, /exit ends"


def main(arguments: Sequence[str]) -> int:
    """Talk to a model.

    Args:
        arguments: A run, checkpoint or Hugging Face directory, and flags.

    Returns:
        The exit code.

    Raises:
        UserError: The model, the image or a flag cannot be used.
    """
    options = _parse(arguments)
    sampling = Sampling(
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        seed=options.seed,
    )
    template = conv_template_named(options.conv_template)
    prepare_command()
    from neva_model.inference.opening import open_model
    from neva_model.inference.session import Session

    session = Session(open_model(options.run, template), sampling)
    if options.image is not None:
        session.show_image(options.image)
    if options.prompt is not None:
        _answer(session, options.prompt)
    else:
        _converse(session, interactive=sys.stdin.isatty())
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nemo-run chat", allow_abbrev=False)
    parser.add_argument("run", type=Path)
    parser.add_argument("--image")
    parser.add_argument("--prompt")
    parser.add_argument("--conv-template")
    parser.add_argument("--max-new-tokens", type=int, default=512)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--seed", type=int)
    return parser.parse_args(arguments)


def _answer(session: "Session", question: str) -> None:
    """Print an answer while it is made, and on standard error why it was cut off, if it was."""
    for piece in session.ask(question):
        print(piece, end="", flush=True)
    print(flush=True)
    if session.notice is not None:
        print(f"({session.notice})", file=sys.stderr, flush=True)


def _converse(session: "Session", *, interactive: bool) -> None:
    """Answer line by line until the input ends.

    At a terminal a mistake is reported and the conversation goes on, and Ctrl-C stops the answer; a script that feeds
    a pipe has to learn of a mistake from the exit code.
    """
    if interactive:
        # Importing it is what gives `input` a history and line editing; not every platform has it.
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401
        print(_COMMANDS)
    while True:
        try:
            line = input("> " if interactive else "").strip()
            if line == "/exit":
                return
            if line:
                _take(session, line)
        except EOFError:
            if interactive:
                print()
            return
        except UnicodeDecodeError as error:
            raise UserError(f"standard input is not {error.encoding} text: {error.reason}") from None
        except UserError as error:
            if not interactive:
                raise
            print(f"error: {error}", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            if not interactive:
                raise
            print()


def _take(session: "Session", line: str) -> None:
    command, _, rest = line.partition(" ")
    if command == "/image" and rest.strip():
        session.show_image(Path(rest.strip()).expanduser())
    elif line == "/reset":
        session.reset()
    elif line.startswith("/"):
        raise UserError(f"{command}: no such command; {_COMMANDS}")
    else:
        _answer(session, line)
