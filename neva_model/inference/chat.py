"""`nemo-run chat`: questions from the command line, a terminal or a pipe, and answers as they are generated."""

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neva_model.inference.options import Sampling, conv_template_named
from neva_model.startup import prepare_command
from neva_recipes.config import DataError, UserError, expand_path, recipe_of_run
from neva_recipes.plan.data.fingerprints import fingerprints
from neva_recipes.plan.origins.checkpoints import find_run_directory
from neva_recipes.plan.trained.same_files import TRAINING
from neva_recipes.prompts.missing_pictures import missing_file
from neva_recipes.prompts.pictures import look_into, looks_texts
from neva_recipes.run_directory.layout import PLAN_FILE
from neva_recipes.run_directory.state import read_json
from neva_recipes.terminal import tell

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
    if options.prompt is not None and not options.prompt.strip():
        raise UserError("--prompt is empty: expected a question; without --prompt questions are typed, or piped in")
    sampling = Sampling(
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        seed=options.seed,
    )
    template = conv_template_named(options.conv_template)
    prepare_command()
    from neva_model.inference.opening import open_model, tell_of_template
    from neva_model.inference.session import Session

    opened = open_model(options.run, template, options.tokenizer)
    tell_of_template(opened, template)
    session = Session(opened, sampling)
    if options.image is not None:
        _show_image(session, Path(options.image))
    elif options.prompt is not None and _always_saw_images(options.run):
        tell("note", "its training had an image in every sample: without --image FILE answers may be poor")
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
    parser.add_argument("--tokenizer")
    parser.add_argument("--max-new-tokens", type=int, default=512)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--seed", type=int)
    return parser.parse_args(arguments)


def _always_saw_images(path: Path) -> bool:
    """Return whether the plan of a run has found an image in every sample, of data that is as it was then."""
    run = find_run_directory(path)
    try:
        planned = {} if run is None else read_json(run / PLAN_FILE)
        lengths = planned["lengths"]
        if run is None or not lengths["measured"] or lengths["images"] < 1:
            return False
        then, recipe = planned.get("data_files"), recipe_of_run(str(run)) if planned.get("data_files") else None
        now = [] if recipe is None else [dataclasses.asdict(file) for file in fingerprints(recipe, TRAINING)]
        return not now or now == then  # a resume trains on what the files hold then, and may not plan anew
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return False  # the note is left out


def _show_image(session: "Session", path: Path) -> None:
    if problem := missing_file(path):
        raise DataError(problem)
    session.show_image(path)
    look = look_into(path)
    for said in looks_texts(look.is_turned, look.has_several, 1).values():
        tell("note", said)


def _answer(session: "Session", question: str) -> None:
    """Print an answer while it is generated, and if it was cut off, the reason on standard error."""
    for piece in session.ask(question):
        print(piece, end="", flush=True)
    print(flush=True)
    if session.notice is not None:
        print(f"({session.notice})", file=sys.stderr, flush=True)


def _converse(session: "Session", *, interactive: bool) -> None:
    """Answer line by line until the input ends.

    At a terminal, a mistake is reported and the conversation goes on, and Ctrl-C stops the answer. A script that feeds
    a pipe must learn of a mistake from the exit code.
    """
    if interactive:
        # Importing readline gives `input` a history and line editing; not every platform has it.
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
            tell("error", str(error))
        except KeyboardInterrupt:
            if not interactive:
                raise
            print()


def _take(session: "Session", line: str) -> None:
    command, _, rest = line.partition(" ")
    if command == "/image" and rest.strip():
        _show_image(session, expand_path(rest.strip()))
    elif line == "/reset":
        session.reset()
    elif line.startswith("/"):
        raise UserError(f"{command}: no such command; {_COMMANDS}")
    else:
        _answer(session, line)
