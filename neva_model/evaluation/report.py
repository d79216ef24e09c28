"""What an evaluation found out: figures, a table, and files."""

import contextlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neva_model.evaluation.questions import Question
from neva_recipes.config import RunError

__all__ = ["Score", "format_table", "is_right", "predictions_text", "score_questions", "write_text"]

_WIDTH = 80
_FIGURES = 28
_ROWS = 20


@dataclass(frozen=True)
class Score:
    """How many questions were answered right.

    Attributes:
        questions: How many were asked.
        correct: How many were answered right.
    """

    questions: int
    correct: int

    @property
    def accuracy(self) -> float:
        """Share of right answers, from 0 to 1."""
        return self.correct / self.questions

    def as_json(self) -> dict[str, Any]:
        """Return the figures for a JSON file."""
        return {"questions": self.questions, "correct": self.correct, "accuracy": self.accuracy}


def is_right(answer: str, reference: str) -> bool:
    """Whether an answer is the reference, character for character, white space around it apart."""
    return answer.strip() == reference.strip()


def score_questions(questions: Sequence[Question], answers: Sequence[str]) -> tuple[Score, dict[str, Score]]:
    """Return the score of all questions, and that of each question text in the order of first appearance."""
    right: dict[str, list[bool]] = defaultdict(list)
    for question, answer in zip(questions, answers, strict=True):
        right[question.text.strip()].append(is_right(answer, question.reference))
    by_text = {text: Score(len(one), sum(one)) for text, one in right.items()}
    return _total(list(by_text.values())), by_text


def _total(scores: Sequence[Score]) -> Score:
    return Score(sum(score.questions for score in scores), sum(score.correct for score in scores))


def format_table(total: Score, by_text: dict[str, Score]) -> str:
    """Return the scores as a table of 80 columns; only the question texts asked most often get rows of their own."""
    rows = sorted(by_text.items(), key=lambda item: -item[1].questions)
    others = rows[_ROWS:]
    lines = [f"{'question':{_WIDTH - _FIGURES}}{'correct':>9}{'of':>9}{'accuracy':>10}"]
    lines += [_row(" ".join(text.split()), score) for text, score in rows[:_ROWS]]
    if others:
        lines.append(_row(f"({len(others)} other questions)", _total([score for _, score in others])))
    lines.append(_row("all", total))
    return "\n".join(lines)


def _row(text: str, score: Score) -> str:
    width = _WIDTH - _FIGURES - 1
    shown = text if len(text) <= width else f"{text[: width - 3]}..."
    return f"{shown:{width}} {score.correct:>9,}{score.questions:>9,}{score.accuracy:>10.4f}"


def write_text(path: Path, text: str) -> None:
    """Write a JSON file that is there whole or, after a failure, not at all; an earlier one then stays.

    Raises:
        RunError: The file cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        # What cannot be encoded is half a surrogate pair, and its Python escape is also that of JSON.
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
        unfinished.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise RunError(f"{path}: cannot be written: {error.strerror}") from None


def predictions_text(questions: Sequence[Question], answers: Sequence[str]) -> str:
    """Return one JSON object a line for every question, in the order of the data file."""
    lines = [
        json.dumps(
            {
                "sample": question.sample,
                "id": question.identity,
                "turn": question.turn,
                "question": question.text,
                "reference": question.reference,
                "answer": answer,
                "correct": is_right(answer, question.reference),
            },
            ensure_ascii=False,
        )
        for question, answer in zip(questions, answers, strict=True)
    ]
    return "".join(f"{line}\n" for line in lines)
