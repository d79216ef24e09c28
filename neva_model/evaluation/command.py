"""`nemo-run evaluate`: a model's answers against the reference answers of a data file."""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neva_model.inference.options import conv_template_named
from neva_model.startup import prepare_command
from neva_recipes.config import RunError, UserError

if TYPE_CHECKING:
    from neva_model.evaluation.questions import Question
    from neva_model.inference.opening import OpenModel

__all__ = ["main"]

_REPORT, _PREDICTIONS = "evaluation.json", "predictions.jsonl"
_SECONDS_BETWEEN_LINES = 10


def main(arguments: Sequence[str]) -> int:
    """Evaluate a model, print a table, and write evaluation.json and predictions.jsonl beside the model.

    Args:
        arguments: A run, checkpoint or Hugging Face directory, and flags.

    Returns:
        The exit code.

    Raises:
        UserError: The model, the data or a flag cannot be used.
    """
    options = _parse(arguments)
    if options.batch_size < 1:
        raise UserError(f"--batch-size={options.batch_size}: expected at least 1")
    template = conv_template_named(options.conv_template)
    prepare_command()
    from neva_model.evaluation.questions import read_questions
    from neva_model.evaluation.report import format_table, predictions_text, score_questions, write_text
    from neva_model.inference.opening import open_model

    opened = open_model(options.run, template)
    directory = _directory_of(opened.source)
    predictions = options.output if options.output is not None else directory / _PREDICTIONS
    for folder in (directory, predictions.parent):
        if not os.access(folder, os.W_OK):
            raise RunError(
                f"{folder}: the results cannot be written there: no such directory, or it is write-protected"
            )
    questions = read_questions(opened, options.data, options.image_folder)
    started = time.perf_counter()
    answers = _answers(opened, questions, options.data, options.batch_size)
    total, by_text = score_questions(questions, answers)
    report = {
        "model": str(opened.source),
        "data": str(options.data),
        "conv_template": opened.template.name if opened.template is not None else None,
        "seconds": round(time.perf_counter() - started, 3),
        **total.as_json(),
        "by_question": {text: score.as_json() for text, score in by_text.items()},
    }
    write_text(predictions, predictions_text(questions, answers))
    write_text(directory / _REPORT, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    print(format_table(total, by_text))
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nemo-run evaluate", allow_abbrev=False)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--image-folder", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--conv-template")
    return parser.parse_args(arguments)


def _directory_of(source: Path) -> Path:
    """Return the run directory of a checkpoint, or the directory itself where it belongs to no run."""
    return source.parent.parent if source.parent.name == "checkpoints" else source


def _answers(opened: "OpenModel", questions: Sequence["Question"], data: Path, batch_size: int) -> list[str]:
    from neva_model.evaluation.answering import answer_questions
    from neva_model.evaluation.report import is_right

    answers = [""] * len(questions)
    right, progress = 0, _Progress(len(questions))
    numbered = answer_questions(opened, questions, data_path=data, batch_size=batch_size)
    for done, (number, answer) in enumerate(numbered, start=1):
        answers[number] = answer
        right += is_right(answer, questions[number].reference)
        progress.show(done, right)
    return answers


class _Progress:
    """How far the evaluation is: one line that changes at a terminal, else a line now and then."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._is_terminal = sys.stderr.isatty()
        self._shown_at = time.monotonic()

    def show(self, done: int, right: int) -> None:
        now, finished = time.monotonic(), done == self._total
        if not finished and now - self._shown_at < (0.2 if self._is_terminal else _SECONDS_BETWEEN_LINES):
            return
        self._shown_at = now
        line = f"{done:,} of {self._total:,} questions answered, {right / done:.2%} of them right"
        # Erase what a longer line before may have left.
        end = "\n" if finished or not self._is_terminal else ""
        print(f"\r{line}\033[K" if self._is_terminal else line, end=end, file=sys.stderr, flush=True)
