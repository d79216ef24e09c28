"""The results of an evaluation: figures, a table, and files."""

import contextlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from neva_model.evaluation.questions import Question
from neva_recipes.config import PlainTable, RunError, path_is

__all__ = [
    "Score",
    "format_table",
    "is_right",
    "predictions_text",
    "require_no_other_file",
    "score_questions",
    "write_text",
]

_CORRECT = "correct: the same as the reference, white space at its ends apart"
"""What `is_right` says."""

_FIGURES = 28
_ROWS = 20


@dataclass(frozen=True)
class Score:
    """How many questions were answered right.

    Attributes:
        questions: Number of questions asked.
        correct: Number of right answers.
    """

    questions: int
    correct: int

    @property
    def accuracy(self) -> float:
        """Share of right answers, from 0 to 1."""
        return self.correct / self.questions

    def as_json(self) -> PlainTable:
        """Return the figures for a JSON file."""
        return {"questions": self.questions, "correct": self.correct, "accuracy": self.accuracy}


def is_right(answer: str, reference: str) -> bool:
    """Return whether an answer equals the reference exactly, apart from surrounding white space."""
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


def format_table(total: Score, by_text: dict[str, Score], width: int) -> str:
    """Return the scores as a table of `width` columns, and what is correct.

    Only the most frequent questions get their own rows.
    """
    rows = sorted(by_text.items(), key=lambda item: -item[1].questions)
    others = rows[_ROWS:]
    lines = [f"{'question':{width - _FIGURES}}{'correct':>9}{'of':>9}{'accuracy':>10}"]
    lines += [_row(" ".join(text.split()), score, width) for text, score in rows[:_ROWS]]
    if others:
        lines.append(_row(f"({len(others)} other questions)", _total([score for _, score in others]), width))
    lines += [_row("all", total, width), _CORRECT]
    return "\n".join(lines)


def _row(text: str, score: Score, width: int) -> str:
    room = width - _FIGURES - 1
    shown = text if len(text) <= room else f"{text[: room - 3]}..."
    return f"{shown:{room}} {score.correct:>9,}{score.questions:>9,}{score.accuracy:>10.4f}"


def write_text(path: Path, text: str) -> None:
    """Write a JSON file completely; after a failure, an earlier file stays unchanged.

    Raises:
        RunError: The file cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        # Only half a surrogate pair cannot be encoded; its Python escape is also valid in JSON.
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
        unfinished.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise RunError(f"{path}: cannot be written: {error.strerror}") from None


def require_no_other_file(path: Path) -> None:
    """Check that answers may be written to a path: it is free, or holds answers of an earlier evaluation.

    Raises:
        RunError: It holds something else, such as the questions.
    """
    if not path_is(path):
        return
    is_ours = False
    if path_is(path, Path.is_file):
        with contextlib.suppress(OSError, ValueError, AttributeError), path.open(encoding="utf-8") as file:
            line = file.readline()
            is_ours = not line or {"question", "reference", "answer", "correct"} <= json.loads(line).keys()
    if not is_ours:
        raise RunError(f"--output={path}: is there already, and holds no answers of an evaluation: name another file")


def predictions_text(
    questions: Sequence[Question], answers: Sequence[str], is_trained: Callable[[Path, int], bool]
) -> str:
    """Return one JSON object per line for every question, in the order of the data files.

    Args:
        questions: The questions.
        answers: Their answers.
        is_trained: Returns whether the model is known to have been trained on a sample, given its place.
    """
    lines = [
        json.dumps(
            {
                "file": str(question.data_path),
                "sample": question.sample,
                "id": question.identity,
                "turn": question.turn,
                "question": question.text,
                "reference": question.reference,
                "answer": answer,
                "correct": is_right(answer, question.reference),
                **({"training_data": True} if is_trained(question.data_path, question.sample) else {}),
            },
            ensure_ascii=False,
        )
        for question, answer in zip(questions, answers, strict=True)
    ]
    return "".join(f"{line}\n" for line in lines)
