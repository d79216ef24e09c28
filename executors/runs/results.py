"""The results of a run: losses, speed and time, its best checkpoint, and its evaluations."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from executors.runs.standing import RunStatus
from neva_recipes.config import PlainTable, Recipe, UserError, build, listed_paths, load_recipe, near_words
from neva_recipes.run_directory.layout import EVALUATION_FILE, EVALUATIONS, RECIPE_FILE
from neva_recipes.run_directory.metrics import TRAIN_LOSS, VAL_LOSS, Curve, Point, file_of_metric, read_metrics
from neva_recipes.run_directory.state import read_json
from neva_recipes.storage.best import best_checkpoint

__all__ = [
    "AboveGuessing",
    "Curves",
    "Evaluation",
    "Results",
    "read_above_guessing",
    "read_evaluations",
    "read_results",
]

_ON_GPU = "peak_memory_gib"
"""A metric that only runs on GPUs have."""

_LAST_LOSSES = 5
"""Logged training losses whose median is the loss at the end: one batch may be hard."""

_NOISE = 1.1
"""A loss up to this many times that of random weights is no sign of a training gone wrong."""

_SMALLEST = math.log(16)
"""No vocabulary is so small: the recipe of a run with a loss below this need not be read."""


class AboveGuessing(NamedTuple):
    """A loss above that of a model that gives every token the same probability.

    Attributes:
        loss: The last validation loss if the run ended with one, else the median of the last training losses.
        measure: What the loss is, in words.
        vocab_size: Number of tokens.
    """

    loss: float
    measure: str
    vocab_size: int

    @property
    def text(self) -> str:
        """What it means and what to do, without the loss."""
        guessing = f"{math.log(self.vocab_size):.2f}, ln {self.vocab_size}"
        return (
            f"worse than guessing each token, which gives a loss of {guessing}: "
            "lower optim.lr, look at the curve, check the data"
        )

    @property
    def line(self) -> str:
        """The loss, what it means and what to do."""
        return f"its {self.measure} is {self.loss:.4g}, {self.text}"


class Curves(dict[str, Curve]):
    """Curves by name; for a name that does not exist, the `KeyError` tells those that it may have meant."""

    def __missing__(self, name: str) -> Curve:
        if not self:
            raise KeyError(f"no metric {name!r}: none has been logged yet")
        near = [known for known in self if name in known] or near_words(name, self)
        hint = f" (did you mean {', '.join(near[:3])}?)" if near else f": expected one of {', '.join(self)}"
        raise KeyError(f"no metric {name!r}{hint}")


@dataclass(frozen=True)
class Evaluation:
    """A report of `nemo-run evaluate`.

    Attributes:
        report: File of the report.
        model: The checkpoint or exported directory that was evaluated.
        data: The data, as the user named it.
        questions: Number of questions.
        correct: Number of correct answers.
        accuracy: Fraction of correct answers, from 0 to 1.
        written: When the report was written, in ISO format.
        digests: Digests of the data files, in their order; empty in reports of older versions.
        training_data: Whether the model was trained on some of the questions; `None` if unknown.
        training_questions: On how many of the questions it was trained; `None` if unknown.
        other_template: Template of the questions if it differs from that of the training.
        other_image_folder: Folder of the images if it differs from that of the training.
    """

    report: str
    model: str
    data: str
    questions: int
    correct: int
    accuracy: float
    written: str
    digests: tuple[str, ...] = ()
    training_data: bool | None = None
    training_questions: int | None = None
    other_template: str | None = None
    other_image_folder: str | None = None

    @property
    def files(self) -> list[str]:
        """The data files, as the user named them."""
        return [self.data] if len(self.digests) == 1 else listed_paths(self.data)

    @property
    def questions_text(self) -> str:
        """The questions in words: names of the data files, and differences from the training."""
        return self.asked(", ".join(Path(path).name for path in self.files))

    def asked(self, files: str) -> str:
        """Return the questions in words, with `files` for the data files."""
        template = f", template {self.other_template}" if self.other_template is not None else ""
        return f"{files}{template}" + (f", images of {self.other_image_folder}" if self.other_image_folder else "")

    def summary(self, asked: str | None = None) -> str:
        """Return the evaluation as one line.

        Args:
            asked: The questions in words; `None` means `questions_text`.
        """
        count = self.training_questions
        counted = f"{count:,} of them " if count is not None and count < self.questions else ""
        trained = f" ({counted}training data)" if self.training_data else ""
        return (
            f"{self.accuracy:.2%} of {self.questions:,} right: {asked or self.questions_text}{trained}, "
            f"{Path(self.model).name}"
        )

    def has_data_of(self, other: "Evaluation") -> bool:
        """Return whether another evaluation has the same questions and settings, as far as the reports tell."""
        mine = self.questions, self.other_template, self.other_image_folder
        if mine != (other.questions, other.other_template, other.other_image_folder):
            return False
        if self.digests and other.digests:
            return sorted(self.digests) == sorted(other.digests)
        return self.data == other.data


@dataclass(frozen=True)
class Results:
    """The results of a run so far; `None` for values that do not exist.

    Attributes:
        train_loss: Training loss at the last logged step.
        lowest_train_loss: The lowest training loss.
        val_loss: The last validation loss.
        lowest_val_loss: The lowest validation loss.
        val_losses: The last and the lowest of each validation file, by its name, if there are several.
        seconds: Total duration of all attempts.
        planned_seconds: Duration according to the plan; `None` for a run on CPUs.
        tokens_per_second: Image and text tokens per second without padding, over the logged steps.
        planned_tokens_per_second: Tokens per second according to the plan; `None` for a run on CPUs.
        best_checkpoint: The existing checkpoint whose own weights had the lowest validation loss.
        best_checkpoint_loss: Its loss; above `lowest_val_loss` if a better checkpoint no longer exists.
        evaluations: Its evaluations, oldest first.
        above_guessing: Its loss, if the model has got worse than guessing.
    """

    train_loss: Point | None = None
    lowest_train_loss: Point | None = None
    val_loss: Point | None = None
    lowest_val_loss: Point | None = None
    val_losses: Mapping[str, tuple[Point, Point]] = field(default_factory=dict)
    seconds: float | None = None
    planned_seconds: float | None = None
    tokens_per_second: float | None = None
    planned_tokens_per_second: float | None = None
    best_checkpoint: Path | None = None
    best_checkpoint_loss: float | None = None
    evaluations: tuple[Evaluation, ...] = field(default_factory=tuple)
    above_guessing: AboveGuessing | None = None

    def to_plain(self) -> PlainTable:
        """Return the results for JSON: losses with their steps, times in seconds, speeds in tokens per second."""
        plain = asdict(self)
        for name in ("train_loss", "lowest_train_loss", "val_loss", "lowest_val_loss"):
            point: Point | None = getattr(self, name)
            plain[name] = point and point._asdict()
        plain["val_losses"] = {
            file: {"last": last._asdict(), "lowest": lowest._asdict()}
            for file, (last, lowest) in self.val_losses.items()
        }
        plain["above_guessing"] = self.above_guessing and self.above_guessing._asdict()
        plain["best_checkpoint"] = self.best_checkpoint and str(self.best_checkpoint)
        return plain


def read_results(run_dir: Path, status: RunStatus, plan: Mapping[str, Any] | None) -> Results:
    """Return the results of a run.

    Args:
        run_dir: Its directory.
        status: Its status.
        plan: Its plan.json; `None` if it is missing or cannot be read.
    """
    metrics = read_metrics(run_dir)
    train, val = metrics.get(TRAIN_LOSS), metrics.get(VAL_LOSS)
    cost = (plan or {}).get("cost") if _ON_GPU in metrics else None
    duration, best = status.duration(), best_checkpoint(run_dir)
    return Results(
        train_loss=train.last if train else None,
        lowest_train_loss=train.lowest if train else None,
        val_loss=val.last if val else None,
        lowest_val_loss=val.lowest if val else None,
        val_losses={
            file: (curve.last, curve.lowest)
            for name, curve in metrics.items()
            if (file := file_of_metric(name, VAL_LOSS)) is not None
        },
        seconds=None if duration is None else duration.total_seconds(),
        planned_seconds=cost["hours"] * 3600 if cost and cost["hours"] is not None else None,
        tokens_per_second=_speed(metrics),
        planned_tokens_per_second=_planned_speed(metrics, plan) if plan and cost else None,
        best_checkpoint=best and best[0],
        best_checkpoint_loss=best and best[1],
        evaluations=tuple(read_evaluations(run_dir)),
        above_guessing=read_above_guessing(run_dir, metrics),
    )


def read_above_guessing(run_dir: Path, metrics: Mapping[str, Curve]) -> AboveGuessing | None:
    """Return the loss of a run that has got worse than guessing; `None` for any other run.

    Args:
        run_dir: Its directory.
        metrics: Its metrics.
    """
    train, val = metrics.get(TRAIN_LOSS), metrics.get(VAL_LOSS)
    if train is None:
        return None
    if val is not None and val.last.step >= train.last.step:
        loss, measure = val.last.value, "last validation loss"
    else:
        last = sorted(train.values[-_LAST_LOSSES:])
        loss, measure = last[len(last) // 2], "median of the last training losses"
    if loss <= _SMALLEST:
        return None
    try:
        recipe: Recipe = build(load_recipe(run_dir / RECIPE_FILE))
    except (UserError, OSError):
        return None  # commands that need the recipe tell of it
    if loss <= _NOISE * _loss_of_random_weights(recipe):
        return None
    return AboveGuessing(loss, measure, recipe.model.language.vocab_size)


def _loss_of_random_weights(recipe: Recipe) -> float:
    """Return about the highest loss that untrained weights give, which is somewhat above that of guessing.

    A logit is the product of an output row with weights of deviation s and of a state of the width h that is normalised
    to a square of h. So logits have the variance h s^2, which costs half of it. Where the row is the embedding of the
    token itself, its logit may be as high as h s, and costs as much.
    """
    language = recipe.model.language
    rows = language.padded_vocab_size(recipe.parallel.tensor_model_parallel_size)
    deviation = language.init_method_std
    per_width = deviation if language.share_embeddings_and_output_weights else deviation**2 / 2
    return math.log(rows) + language.hidden_size * per_width


def _speed(metrics: Mapping[str, Curve]) -> float | None:
    """Return the tokens per second over all logged steps."""
    speed, time = metrics.get("tokens_per_second"), metrics.get("step_time")
    if speed is None or time is None or len(speed) != len(time):
        return None
    seconds = sum(time.values)
    tokens = sum(rate * passed for rate, passed in zip(speed.values, time.values, strict=True))
    return tokens / seconds if seconds > 0 else None


def _planned_speed(metrics: Mapping[str, Curve], plan: Mapping[str, Any]) -> float | None:
    """Return the tokens per second of a plan, for steps of as many samples as the worker has counted."""
    samples, time = metrics.get("samples_per_second"), metrics.get("step_time")
    if samples is None or time is None:
        return None
    batch = samples.last.value * time.last.value
    return float(plan["lengths"]["tokens"] * batch / plan["cost"]["step_seconds"])


def read_evaluations(run_dir: Path) -> Iterator[Evaluation]:
    """Yield the evaluations of a run, oldest first; runs of older versions have kept only the newest one."""
    found = []
    for path in (run_dir / EVALUATIONS).glob("*.json"):
        try:
            found.append((path.stat().st_mtime_ns, path))
        except OSError:
            continue  # the file is being replaced
    for _, path in sorted(found) or [(0, run_dir / EVALUATION_FILE)]:
        try:
            report = read_json(path)
            evaluation = Evaluation(
                report=str(path),
                model=str(report["model"]),
                data=str(report["data"]),
                questions=int(report["questions"]),
                correct=int(report["correct"]),
                accuracy=float(report["accuracy"]),
                written=datetime.fromtimestamp(path.stat().st_mtime).astimezone().isoformat(timespec="seconds"),
                digests=tuple(map(str, report.get("digests", ()))),
                training_data=_training_data(report),
                training_questions=None if (count := report.get("training_questions")) is None else int(count),
                other_template=_other(report, "conv_template"),
                other_image_folder=_other(report, "image_folder"),
            )
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            continue  # missing, or not a report of this program
        if 0 <= evaluation.accuracy <= 1:
            yield evaluation


def _training_data(report: Mapping[str, object]) -> bool | None:
    """Return whether questions were trained on; for reports of older versions, without a count, `False` is unknown."""
    said = report.get("training_data")
    return said if said is True or (said is False and "training_questions" in report) else None


def _other(report: Mapping[str, Any], name: str) -> str | None:
    """Return a setting of an evaluation if training used another value; `None` for older reports, which do not tell."""
    training = report.get("training")
    value = report.get(name)
    return str(value) if training is not None and value is not None and value != training[name] else None
