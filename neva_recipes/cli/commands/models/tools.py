"""Uses a model: `nemo-run chat`, `generate`, `evaluate`, `export`, `convert`, `merge` and `reshard`.

The tools themselves need torch and are in `neva_model`; each is imported only when it is about to run. Their command
lines are defined here, so that help and error messages come at once.
"""

import argparse
import importlib
import json
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from neva_recipes.cli._chosen import choose_run
from neva_recipes.cli.arguments import StrictParser, UsageError, add_runs_dir, number, path_argument, whole_number
from neva_recipes.config import CheckpointError, Positive, RunError, expand_path, listed_paths, path_is
from neva_recipes.interruption import tell_of_interruption, uninterrupted
from neva_recipes.plan.data.near_files import suggest_files
from neva_recipes.plan.origins.checkpoints import find_checkpoint
from neva_recipes.plan.origins.unfinished import unfinished_note
from neva_recipes.run_directory.exit_codes import EXIT_CANCELLED
from neva_recipes.run_directory.names import step_of
from neva_recipes.run_directory.stages import TOOL_FILE, run_title
from neva_recipes.storage.exports import unfinished_export
from neva_recipes.terminal import tell

__all__ = [
    "chat_command",
    "convert_command",
    "evaluate_command",
    "export_command",
    "generate_command",
    "merge_command",
    "model_path",
    "require_single",
    "reshard_command",
    "tool_command",
]

_EVALUATION, _EXPORT = "neva_model.evaluation", "neva_model.checkpoints.export"
_MERGING = "neva_model.checkpoints.adapters.command"
_CONVERSION, _RESHARDING = "neva_model.checkpoints.converting.command", "neva_model.checkpoints.resharding.command"


def chat_command(argv: Sequence[str]) -> int:
    """Talk to a trained model: `nemo-run chat RUN [--image FILE]`."""
    parser = StrictParser("nemo-run chat", description="Talk with a trained model, about an image or without one.")
    _add_model(parser)
    images = parser.add_argument(
        "--image", metavar="FILE", type=path_argument, action="append", help="image to talk about"
    )
    parser.add_argument("--prompt", metavar="TEXT", help="ask this, print the answer, and end")
    parser.add_argument("--conv-template", metavar="NAME", help="template (that of the training)")
    _add_sampling(parser, max_new_tokens=512)
    arguments = parser.parse(argv)
    # Whoever gives two images wants both seen; of other flags the last one counts, as in most commands.
    if arguments.image is not None:
        if len(arguments.image) > 1:
            raise UsageError(f"{images.option_strings[0]} is given twice: chat talks about one image")
        (arguments.image,) = arguments.image
    return _call("neva_model.inference.chat", arguments, says_which=True)


def generate_command(argv: Sequence[str]) -> int:
    """Continue texts: `nemo-run generate RUN --prompt TEXT`."""
    parser = StrictParser(
        "nemo-run generate",
        description="Continue texts as a model would: one on the terminal, several as JSON lines.",
    )
    _add_model(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompt", metavar="TEXT", action="append", help="text to continue; may be repeated")
    source.add_argument(
        "--prompts", metavar="FILE", type=path_argument, help='prompts: lines of text, or JSONL with "prompt"'
    )
    parser.add_argument(
        "--output", metavar="FILE", type=path_argument, help="JSON lines to write; must not exist yet (printed)"
    )
    parser.add_argument("--greedy", action="store_true", help="take the likeliest token (so without --temperature)")
    _add_sampling(parser, max_new_tokens=100)
    parser.add_argument(
        "--add-bos",
        action=argparse.BooleanOptionalAction,
        help="put the token that begins a text first (as training did)",
    )
    parser.add_argument("--batch-size", metavar="N", type=_positive, help="prompts continued at once (8)")
    parser.add_argument("--tp", metavar="N", type=_positive, help="processes that share every layer (1)")
    parser.add_argument("--pp", metavar="N", type=_positive, help="processes that hold consecutive layers (1)")
    given = parser.parse(argv)
    existed = given.output is not None and os.path.lexists(given.output)
    try:
        return _call("neva_model.inference.texts", given, says_which=True)
    except KeyboardInterrupt:
        has_written = given.output is not None and not existed and _holds_something(given.output)
        kept = f": {given.output} holds what was done" if has_written else ""
        tell_of_interruption(f"generate was interrupted{kept}")
        return EXIT_CANCELLED


def _holds_something(output: Path) -> bool:
    """Return whether a file that was begun holds a line; an empty one is removed."""
    if os.path.lexists(output) and not output.stat().st_size:
        output.unlink()
    return os.path.lexists(output)


def evaluate_command(argv: Sequence[str]) -> int:
    """Measure a trained model: `nemo-run evaluate RUN --data FILE`."""
    parser = StrictParser(
        "nemo-run evaluate",
        description="Let a trained model answer a file of questions, and count the right answers.",
    )
    _add_model(parser)
    parser.add_argument(
        "--data",
        metavar="FILE",
        type=path_argument,
        required=True,
        help="LLaVA JSON or JSONL of questions and answers; several as a.json,b.json",
    )
    parser.add_argument(
        "--image-folder",
        metavar="D",
        type=path_argument,
        help="folder of the images (that of each file, or of the training)",
    )
    parser.add_argument("--conv-template", metavar="NAME", help="template (that of the training)")
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=path_argument,
        help="where every answer goes (predictions.jsonl beside the model)",
    )
    parser.add_argument("--batch-size", metavar="N", type=whole_number, help="questions answered at once (32)")
    given = parser.parse(argv)
    try:
        return _call(_EVALUATION, given)
    except KeyboardInterrupt:
        tell_of_interruption(
            "evaluate was interrupted: nothing is kept, since results are written after the last answer"
        )
        return EXIT_CANCELLED


def export_command(argv: Sequence[str]) -> int:
    """Write a trained model for other programs: `nemo-run export RUN DIR`."""
    parser = StrictParser(
        "nemo-run export",
        description="Write a trained model as a directory that transformers can load.",
    )
    _add_model(parser, "name of a run, or a run or checkpoint")
    parser.add_argument("directory", metavar="DIR", type=path_argument, help="directory to write; must not exist yet")
    return _write("export", _EXPORT, parser.parse(argv))


def convert_command(argv: Sequence[str]) -> int:
    """Write a model in another layout: `nemo-run convert SOURCE TARGET`."""
    parser = StrictParser(
        "nemo-run convert",
        description=(
            "Write a model in another layout: a Hugging Face directory as a checkpoint that\n"
            "recipes can start from, a run or a checkpoint as a Hugging Face directory."
        ),
    )
    _add_model(parser, metavar="SOURCE")
    parser.add_argument("directory", metavar="TARGET", type=path_argument, help="to write; must not exist yet")
    parser.add_argument(
        "--layout",
        metavar="L",
        choices=("megatron", "transformers", "original", "projector", "peft"),
        help="megatron, transformers, original (LLaVA's own), projector (its mm_projector.bin), peft (adapters)",
    )
    parser.add_argument("--verify", action="store_true", help="compare the logits of both before it counts as written")
    return _write("convert", _CONVERSION, parser.parse(argv))


def merge_command(argv: Sequence[str]) -> int:
    """Write a model with adapters as one without: `nemo-run merge RUN DIR`."""
    parser = StrictParser(
        "nemo-run merge",
        description=(
            "Write a model that was trained with adapters as a directory without any: each\n"
            "weight with what its adapters add. nemo-run convert --layout peft writes the\n"
            "adapters alone."
        ),
    )
    _add_model(parser, "name of a run, or a run or checkpoint, with adapters")
    parser.add_argument("directory", metavar="DIR", type=path_argument, help="directory to write; must not exist yet")
    parser.add_argument(
        "--layout", metavar="L", choices=("transformers", "original"), help="transformers, or original (LLaVA's own)"
    )
    parser.add_argument("--verify", action="store_true", help="compare the logits of both before it counts as written")
    return _write("merge", _MERGING, parser.parse(argv))


def reshard_command(argv: Sequence[str]) -> int:
    """Write a checkpoint as another layout would have saved it: `nemo-run reshard CKPT OUT --tp N --pp N`."""
    parser = StrictParser(
        "nemo-run reshard",
        description=(
            "Write a checkpoint as a run of another layout would have saved it, with its\n"
            "optimizer. Any layout can load any checkpoint: files that match are read faster."
        ),
    )
    parser.add_argument("run", metavar="CKPT", help="name of a run, or a run or checkpoint")
    parser.add_argument("directory", metavar="OUT", type=path_argument, help="to write; must not exist yet")
    parser.add_argument("--tp", metavar="N", type=_positive, help="ranks that share every layer (1)")
    parser.add_argument("--pp", metavar="N", type=_positive, help="ranks that hold consecutive layers (1)")
    parser.add_argument("--weights-only", action="store_true", help="leave out the optimizer")
    add_runs_dir(parser)
    return _write("reshard", _RESHARDING, parser.parse(argv))


def _write(name: str, module: str, given: argparse.Namespace) -> int:
    """Call a tool that writes a directory, and say after Ctrl-C what is left of it."""
    existed = os.path.lexists(given.directory)
    try:
        return _call(module, given)
    except KeyboardInterrupt:
        with uninterrupted():  # a second Ctrl-C may have ended the removal
            shutil.rmtree(unfinished_export(given.directory), ignore_errors=True)
        is_complete = not existed and os.path.lexists(given.directory)
        kept = f"{given.directory} is complete" if is_complete else f"nothing is left of {given.directory}"
        tell_of_interruption(f"{name} was interrupted: {'nothing was written' if existed else kept}")
        return EXIT_CANCELLED


def tool_command(run_dir: Path) -> str | None:
    """Return the command that does the same as a stage without a recipe; `None` for any other run."""
    try:
        tool = json.loads((run_dir / TOOL_FILE).read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError:
        return None
    command = {_EVALUATION: "evaluate", _EXPORT: "export"}.get(tool["module"])
    return command and shlex.join(["nemo-run", command, *tool["arguments"]])


def _add_sampling(parser: StrictParser, *, max_new_tokens: int) -> None:
    parser.add_argument("--temperature", metavar="T", type=number, help="0 takes the likeliest token (0)")
    parser.add_argument("--top-p", metavar="P", type=number, help="sample among the likeliest tokens of this share")
    parser.add_argument("--top-k", metavar="K", type=whole_number, help="sample among this many likeliest tokens")
    parser.add_argument(
        "--max-new-tokens", metavar="N", type=whole_number, help=f"longest answer, in tokens ({max_new_tokens})"
    )
    parser.add_argument("--seed", metavar="N", type=whole_number, help="seed of the sampling")


def _positive(text: str) -> int:
    return whole_number(text, Positive)


def _add_model(
    parser: StrictParser,
    description: str = "name of a run, or a run, checkpoint or Hugging Face directory",
    metavar: str = "RUN",
) -> None:
    parser.add_argument("run", metavar=metavar, help=description)
    parser.add_argument(
        "--tokenizer", metavar="P", type=path_argument, help="where a run's tokenizer is now, if it has moved"
    )
    add_runs_dir(parser)


def _call(module: str, arguments: argparse.Namespace, *, says_which: bool = False) -> int:
    """Pass a command line to `main` of a module: the run as a path, the rest unchanged.

    Args:
        module: The module of the tool.
        arguments: The parsed arguments.
        says_which: Whether to tell which run and step a name stands for, as tools do themselves whose output names it.
    """
    given = dict(vars(arguments))
    word = given.pop("run")
    named = [model_path(word, given.pop("runs_dir"))]
    require_single(word, named[0])
    which = _which(word, Path(named[0])) if says_which else None
    if note := unfinished_note(Path(named[0])) or which:
        tell("note", note)
    _require_files(given)
    named += [str(given.pop("directory"))] if "directory" in given else []
    words = [word for name, value in given.items() for word in _words(f"--{name.replace('_', '-')}", value)]
    # A name may begin with a dash.
    code: int = importlib.import_module(module).main([*words, "--", *named])
    return code


def _which(word: str, run_dir: Path) -> str | None:
    """Return a line with the run and the step that a word stands for; `None` for a run's own name, and for a path.

    Of a pattern it has been told already.
    """
    from executors import is_pattern

    title = run_title(run_dir)
    if word in (title, run_dir.name) or is_pattern(word) or expand_path(word).resolve() == run_dir.resolve():
        return None
    try:
        step = step_of(find_checkpoint(run_dir))
    except CheckpointError:
        return None  # the tool reports the problem
    return None if step is None else f"{word} stands for {title}, step {step}"


def _words(flag: str, value: object) -> Iterator[str]:
    """Yield a flag as the user may have typed it."""
    if isinstance(value, bool):
        if value or flag == "--add-bos":
            yield flag if value else flag.replace("--", "--no-", 1)
    elif value is not None:
        yield from (f"{flag}={each}" for each in (value if isinstance(value, list) else [value]))


def _require_files(given: Mapping[str, Any]) -> None:
    """Raise `RunError` for the first file or folder that the command is to read and that is not there."""
    for flag in ("data", "image", "image_folder", "prompts"):
        named = given.get(flag)
        what = "folder" if flag == "image_folder" else "file"
        for path in [] if named is None else listed_paths(str(named)) if flag == "data" else [str(named)]:
            if not path_is(expand_path(path)):
                hint = suggest_files(path, only_files=what == "file")
                raise RunError(f"--{flag.replace('_', '-')}={path}: no such {what}{hint}")


def require_single(word: str, path: str) -> None:
    """Check that what a user names is no pipeline, which has a model for each of its stages.

    Raises:
        RunError: It is a pipeline; the message names its stages.
    """
    from executors import require_single as require_single_run

    require_single_run(Path(path), word)


def model_path(run: str, runs_dir: Path) -> str:
    """Return the path of the run with this name; any other directory is taken for a Hugging Face directory.

    Raises:
        RunError: There is neither.
    """
    try:
        return str(choose_run(run, runs_dir).path)
    except RunError as error:
        if path_is(expand_path(run), Path.is_dir):
            return str(expand_path(run).resolve())
        folder = f", and no folder {run}" if "/" in run else ""
        # A run that is near is meant before a folder that is.
        hint = "" if "did you mean" in str(error) else suggest_files(run)
        raise RunError(f"{error}{folder}{hint}") from None
