"""Using a trained model: `nemo-run chat`, `evaluate` and `export`.

The tools themselves need torch and live in `neva_model`; each is imported only when it is about to run. Here is what
their command lines look like, so that help and mistakes take no time.
"""

import importlib
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from neva_recipes.cli._arguments import StrictParser, add_runs_dir
from neva_recipes.config import RunError, path_is

__all__ = ["chat_command", "evaluate_command", "export_command", "tool_command"]

_EVALUATION, _EXPORT = "neva_model.evaluation", "neva_model.checkpoints.export"


def chat_command(argv: Sequence[str]) -> int:
    """Talk to a trained model: `nemo-run chat RUN [--image FILE]`."""
    parser = StrictParser("nemo-run chat", description="Talk with a trained model, about an image or without one.")
    _add_model(parser)
    parser.add_argument("--image", metavar="FILE", help="image to talk about")
    parser.add_argument("--prompt", metavar="TEXT", help="ask this, print the answer, and end")
    parser.add_argument("--conv-template", metavar="NAME", help="template (that of the training)")
    parser.add_argument("--temperature", metavar="T", type=float, help="0 takes the likeliest token (0)")
    parser.add_argument("--top-p", metavar="P", type=float, help="sample among the likeliest tokens of this share")
    parser.add_argument("--top-k", metavar="K", type=int, help="sample among this many likeliest tokens")
    parser.add_argument("--max-new-tokens", metavar="N", type=int, help="longest answer, in tokens (512)")
    parser.add_argument("--seed", metavar="N", type=int, help="seed of the sampling")
    return _call("neva_model.inference.chat", parser, argv)


def evaluate_command(argv: Sequence[str]) -> int:
    """Measure a trained model: `nemo-run evaluate RUN --data FILE`."""
    parser = StrictParser(
        "nemo-run evaluate",
        description="Let a trained model answer a file of questions, and count the right answers.",
    )
    _add_model(parser)
    parser.add_argument("--data", metavar="FILE", required=True, help="LLaVA JSON or JSONL of questions and answers")
    parser.add_argument("--image-folder", metavar="D", help="folder of the images (that of the file)")
    parser.add_argument("--conv-template", metavar="NAME", help="template (that of the training)")
    parser.add_argument("--output", metavar="FILE", help="where every answer goes (predictions.jsonl beside the model)")
    parser.add_argument("--batch-size", metavar="N", type=int, help="questions answered at once (32)")
    return _call(_EVALUATION, parser, argv)


def export_command(argv: Sequence[str]) -> int:
    """Write a trained model for other programs: `nemo-run export RUN DIR`."""
    parser = StrictParser(
        "nemo-run export",
        description="Write a trained model as a directory that transformers and vLLM can load.",
    )
    _add_model(parser)
    parser.add_argument("directory", metavar="DIR", help="directory to write; must not exist yet")
    return _call(_EXPORT, parser, argv)


def tool_command(run_dir: Path) -> str | None:
    """Return the command that does what a stage without a recipe does; none if the run is another one."""
    try:
        tool = json.loads((run_dir / "tool.json").read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError:
        return None
    command = {_EVALUATION: "evaluate", _EXPORT: "export"}.get(tool["module"])
    return command and shlex.join(["nemo-run", command, *tool["arguments"]])


def _add_model(parser: StrictParser) -> None:
    parser.add_argument("run", metavar="RUN", help="name of a run, or a run, checkpoint or Hugging Face directory")
    add_runs_dir(parser)


def _call(module: str, parser: StrictParser, argv: Sequence[str]) -> int:
    """Check a command line and hand it on to `main` of a module: the run as a path, and the rest as it was given."""
    given = vars(parser.parse(argv))
    words = [_model_path(given.pop("run"), given.pop("runs_dir"))]
    words += [given.pop("directory")] if "directory" in given else []
    words += [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None]
    code: int = importlib.import_module(module).main(words)
    return code


def _model_path(run: str, runs_dir: Path) -> str:
    """Return the path that a run's name stands for; any other directory is taken for a Hugging Face one."""
    from executors import find_run

    try:
        return str(find_run(run, runs_dir).path)
    except RunError:
        if path_is(Path(run), Path.is_dir):
            return str(Path(run).resolve())
        raise
