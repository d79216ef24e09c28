"""Finds the best checkpoint of a run: the one whose own weights had the lowest validation loss."""

from collections.abc import Mapping
from pathlib import Path

from neva_recipes.config import CheckpointError
from neva_recipes.run_directory.layout import CHECKPOINTS
from neva_recipes.run_directory.names import list_checkpoints, step_of
from neva_recipes.storage.checkpoints import read_record

__all__ = ["best_checkpoint", "best_step", "own_loss"]


def own_loss(validation: str | None, metrics: Mapping[str, object]) -> float | None:
    """Return the validation loss of a checkpoint's weights; `None` if it only holds the loss of an earlier step.

    Args:
        validation: Entry of checkpoint.json about the validation of its step.
        metrics: The metrics in checkpoint.json.
    """
    loss = metrics.get("val_loss")
    return float(loss) if validation == "done" and isinstance(loss, int | float) else None


def best_step(losses: Mapping[int, float]) -> int | None:
    """Return the step of the lowest loss, the newest of equal ones; `None` without losses.

    Args:
        losses: The losses that `own_loss` returns, by the step of the checkpoint.
    """
    return min(losses, key=lambda step: (losses[step], -step), default=None)


def best_checkpoint(run_dir: Path) -> tuple[Path, float] | None:
    """Return the best checkpoint of a run and its validation loss; `None` if no checkpoint was validated."""
    paths: dict[int, Path] = {}
    losses: dict[int, float] = {}
    for path in list_checkpoints(run_dir / CHECKPOINTS):
        step = step_of(path)
        try:
            record = read_record(path)
            loss = own_loss(record.get("validation"), record["metrics"])
        except (CheckpointError, KeyError, AttributeError):
            continue  # a damaged checkpoint is reported when it is used
        if step is not None and loss is not None:
            paths[step], losses[step] = path, loss
    best = best_step(losses)
    return None if best is None else (paths[best], losses[best])
