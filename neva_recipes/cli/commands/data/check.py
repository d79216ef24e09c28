"""Checks data files: `nemo-run data check FILE [FILE ...]`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from neva_recipes.cli.arguments import StrictParser, UsageError, path_argument
from neva_recipes.cli.commands.data._options import add_prompt_options
from neva_recipes.cli.commands.data._outputs import require_folder, require_outputs, write_output
from neva_recipes.cli.commands.data._progress import Teller
from neva_recipes.config import VisionConfig, how_many
from neva_recipes.data_tools.check import Progress, check_files
from neva_recipes.data_tools.fix import fix_endings, fixed_file
from neva_recipes.data_tools.page import histograms_to_png, matplotlib_classes, report_to_html
from neva_recipes.data_tools.report import Report
from neva_recipes.data_tools.settings import Settings
from neva_recipes.data_tools.text import report_to_json, report_to_text
from neva_recipes.families import image_length
from neva_recipes.interruption import tell_of_interruption
from neva_recipes.terminal import one_line, print_document, tell
from neva_recipes.tokenizers import find_tokenizer

__all__ = ["check_action"]

_FOUND = 1
"""Exit code where something was found."""

_BAR = 20


def check_action(argv: Sequence[str]) -> int:
    """Say what is wrong with data files: `nemo-run data check FILE [FILE ...]`; 1 if there is something."""
    given = _parser().parse(argv)
    _require(given)
    settings = Settings(
        template=given.template,
        sequence_length=given.sequence_length,
        image_tokens=image_length(VisionConfig()),
        tokenizer=None if given.tokenizer is None else find_tokenizer(str(given.tokenizer)),
        image_folder=given.image_folder,
        decodes=given.images,
    )
    teller = Teller()
    try:
        report = check_files(
            given.files, settings, lambda progress: teller.tell(lambda seconds: _line(progress, seconds))
        )
    except KeyboardInterrupt:
        tell_of_interruption("stopped; nothing was written")
        raise
    finally:
        teller.end()
    print_document(report_to_json(report) if given.format == "json" else report_to_text(report))
    if given.html is not None:
        write_output(given.html, report_to_html(report).encode())
    if given.png is not None:
        write_output(given.png, histograms_to_png(report))
    if given.fix:
        _fix(report, given.image_folder)
    return 0 if report.is_clean else _FOUND


def _parser() -> StrictParser:
    parser = StrictParser(
        "nemo-run data check",
        description=(
            "Say what is wrong with data files of conversations, sample by sample, and how\n"
            "long, how many and of which kind the samples are. The exit code is 0 if nothing\n"
            "was found, 1 if something was, and 2 if a file cannot be read."
        ),
    )
    parser.add_argument("files", metavar="FILE", type=path_argument, nargs="+", help="JSON array, or JSON lines")
    parser.add_argument("--image-folder", metavar="D", type=path_argument, help="look at the images in this folder")
    parser.add_argument("--images", action="store_true", help="decode every image")
    parser.add_argument("--tokenizer", metavar="T", type=path_argument, help="count tokens, as data.tokenizer does")
    add_prompt_options(parser)
    parser.add_argument(
        "--fix", action="store_true", help="copy images to their right endings; write FILE.fixed.json with the names"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="text or json (text)")
    parser.add_argument("--html", metavar="FILE", type=path_argument, help="write a page too")
    parser.add_argument("--png", metavar="FILE", type=path_argument, help="write the histograms as a picture too")
    return parser


def _require(given: argparse.Namespace) -> None:
    """Refuse what cannot be done before anything is read."""
    folder: Path | None = given.image_folder
    for flag in ("images", "fix"):
        if folder is None and getattr(given, flag):
            raise UsageError(f"--{flag}: name the folder of the images with --image-folder")
    require_folder("--image-folder", folder)
    if len(set(given.files)) < len(given.files):
        raise UsageError("a file is named twice")
    fixed = [fixed_file(path) for path in given.files] if given.fix else []
    require_outputs([given.html, given.png, *fixed])
    if given.png is not None:
        matplotlib_classes()


def _fix(report: Report, folder: Path) -> None:
    for file in report.files:
        fixed = fix_endings(file, folder)
        if fixed is None:
            tell("note", f"{file.path}: no image has a wrong ending: nothing was mended")
            continue
        copied = how_many(fixed.copies, "image")
        renamed = how_many(fixed.samples, "sample")
        tell("note", f"wrote {one_line(str(fixed.path))}: other names in {renamed}; copied {copied}")


def _line(progress: Progress, seconds: float) -> str:
    done = min(_BAR, int(_BAR * progress.share))
    bar = f"[{'#' * done}{'-' * (_BAR - done)}] {progress.share:4.0%}"
    amount = f"{how_many(progress.samples, 'sample')}, {how_many(progress.findings, 'finding')}"
    return f"{bar} {amount}, {progress.samples / seconds:,.0f}/s"
