"""The results of a run, as lines."""

import math
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from neva_recipes.comparison import Figure
from neva_recipes.config import RunError
from neva_recipes.run_directory.names import step_of

if TYPE_CHECKING:
    from executors import Evaluation, Point, Results

__all__ = ["duration_text", "have_other_data", "result_facts", "result_figures", "results_of"]

_SAME = 1e-6
"""Relative difference up to which two losses from different files are the same."""


def results_of(word: str, runs_dir: Path) -> "Results | None":
    """Return the results of the run that a word stands for; `None` if it stands for something else."""
    from executors import find_run

    try:
        return find_run(word, runs_dir).results()
    except RunError:
        return None


def result_facts(results: "Results") -> dict[str, object]:
    """Return the results of a run, by label; `None` if there is nothing to say."""
    from executors.runs.asked import evaluation_lines

    return {
        "loss": _loss_text(results.train_loss, results.lowest_train_loss, "lowest"),
        "val loss": _loss_text(results.val_loss, results.lowest_val_loss, "best"),
        **{
            f"val loss of {file}": _loss_text(last, lowest, "best")
            for file, (last, lowest) in results.val_losses.items()
        },
        "tokens/s": results.tokens_per_second and f"{results.tokens_per_second:,.0f}",
        "best": _best_text(results),
        "evaluated": evaluation_lines(results.evaluations) or None,
    }


def result_figures(old: "Results | None", new: "Results | None") -> tuple[list[Figure], list[Figure]]:
    """Return the figures by which two runs are compared, in the same rows for both; accuracies match by questions."""
    accuracies = list(_accuracies(old, new))
    return (
        _figures(old, [(name, share) for name, share, _ in accuracies]),
        _figures(new, [(name, share) for name, _, share in accuracies]),
    )


def _figures(results: "Results | None", accuracies: Sequence[tuple[str, float | None]]) -> list[Figure]:
    points: dict[str, Point | None] = dict.fromkeys(
        ("train loss, last", "train loss, lowest", "val loss, last", "val loss, best")
    )
    seconds = speed = None
    if results is not None:
        found = results.train_loss, results.lowest_train_loss, results.val_loss, results.lowest_val_loss
        points = dict(zip(points, found, strict=True))
        seconds, speed = results.seconds, results.tokens_per_second
    return [
        *(Figure(name, "nats", None if point is None else point.value) for name, point in points.items()),
        *(Figure(name, "%", None if share is None else 100 * share) for name, share in accuracies),
        Figure("time", "s", seconds),
        Figure("tokens a second", "", speed),
    ]


def _accuracies(old: "Results | None", new: "Results | None") -> "Iterator[tuple[str, float | None, float | None]]":
    """Yield a title for each evaluation, and the share of right answers of both runs; `None` for a run without it.

    The newest evaluations of both runs on the same data are paired. If no data is the same, the newest evaluation of
    each run stands alone.
    """
    left, right = (_newest_by_data(results) for results in (old, new))
    pairs = [(one, other) for one in left for other in right if one.has_data_of(other)]
    if pairs:
        from executors.runs.asked import asked_texts

        for name, (one, other) in zip(asked_texts([one for one, _ in pairs]), pairs, strict=True):
            yield f"right answers, {name}{_caveats(one, other)}", one.accuracy, other.accuracy
        return
    yield from ((_title(one), one.accuracy, None) for one in left[-1:])
    yield from ((_title(other), None, other.accuracy) for other in right[-1:])


def _caveats(one: "Evaluation", other: "Evaluation") -> str:
    """Return what to know of two shares of right answers: that they are of different steps, or of training data."""
    steps = [step_of(Path(found.model)) for found in (one, other)]
    said = [f"A at step {steps[0]}, B at step {steps[1]}"] if None not in steps and steps[0] != steps[1] else []
    said += [f"{side} was trained on some" for side, found in (("A", one), ("B", other)) if found.training_data]
    return f" ({', '.join(said)})" if said else ""


def _newest_by_data(results: "Results | None") -> "list[Evaluation]":
    """Return the newest evaluation on each data set, newest last."""
    found: list[Evaluation] = []
    for evaluation in results.evaluations if results is not None else ():
        found = [other for other in found if not evaluation.has_data_of(other)] + [evaluation]
    return found


def have_other_data(old: "Results | None", new: "Results | None") -> bool:
    """Return whether both runs have been evaluated, but never on the same data."""
    accuracies = list(_accuracies(old, new))
    return len(accuracies) == 2 and all(None in shares for _, *shares in accuracies)


def _title(found: "Evaluation") -> str:
    return f"right answers, {found.questions_text}, {found.questions:,} questions"


def duration_text(passed: timedelta) -> str:
    """Return a time as hours, minutes and seconds, or days and hours."""
    minutes, seconds = divmod(passed.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{passed.days}d {hours}h" if passed.days else f"{hours}:{minutes:02}:{seconds:02}"


def _loss_text(last: "Point | None", lowest: "Point | None", word: str) -> str | None:
    if last is None or lowest is None:
        return None
    text = f"{last.value:.4f} at step {last.step}"
    return text if last == lowest else f"{text}, {word} {lowest.value:.4f} at step {lowest.step}"


def _best_text(results: "Results") -> object:
    """Return the best checkpoint; if the best step has none, a text that says so."""
    loss, lowest = results.best_checkpoint_loss, results.lowest_val_loss
    if loss is None or lowest is None or loss <= lowest.value or math.isclose(loss, lowest.value, rel_tol=_SAME):
        return results.best_checkpoint
    return f"{lowest.value:.4f} at step {lowest.step}, without a checkpoint; of those there {results.best_checkpoint}"
