"""Errors that end all ranks, and the file that records why a rank failed."""

import json
import os
from pathlib import Path

from neva_recipes.config import UserError
from neva_recipes.run_directory.layout import FAILURE_FILE
from neva_recipes.secrets import mask, secret_values

__all__ = ["DivergedError", "FailedTogether", "record_failure"]


class FailedTogether(UserError):
    """Raised on every rank in the same place because one of them has met an error; the work so far can be saved.

    Attributes:
        rank: The rank that met the error.
    """

    def __init__(self, rank: int, message: str) -> None:
        super().__init__(message)
        self.rank = rank


class DivergedError(FailedTogether):
    """Raised on every rank if a loss or a gradient is not finite; the trained weights are not worth saving.

    Attributes:
        step: The step with this value.
    """

    def __init__(self, step: int, what: str, lr: float, clip_grad: float) -> None:
        """Make the message.

        Args:
            step: The step with this value.
            what: The quantity and its value.
            lr: The peak learning rate.
            clip_grad: The norm at which gradients are clipped; 0 if they are not.
        """
        self.step = step
        clip = f"lower optim.clip_grad (it is {clip_grad:g})" if clip_grad else "set optim.clip_grad=1 (it is off)"
        super().__init__(
            0,
            f"training has diverged: {what} in step {step}; nothing is saved of it. Lower optim.lr (it is {lr:g}), "
            f"{clip}, warm up longer, or look for what is wrong in the data",
        )


def record_failure(run_directory: Path, kind: str, message: str, rank: int | None = None) -> None:
    """Write failure.json, unless another rank has already written a reason other than losing its connection.

    Args:
        run_directory: Directory of the run.
        kind: `user` for what the user can mend, `lost` for the loss of another rank, `crash` for anything else.
        message: What went wrong; secrets in it are masked.
        rank: The rank that met the error; `None` means this one.
    """
    failure = {
        "rank": int(os.environ.get("RANK", "0")) if rank is None else rank,
        "kind": kind,
        "message": mask(message, secret_values(os.environ)),
    }
    target = run_directory / FAILURE_FILE
    try:
        if kind != "lost" and _is_lost(target):
            temporary = target.with_name(f".failure.{os.getpid()}.json")
            temporary.write_text(json.dumps(failure), encoding="utf-8")
            temporary.replace(target)
            return
        with target.open("x", encoding="utf-8") as file:
            json.dump(failure, file)
    except OSError:
        # Another rank was first, or the disk is full; standard error says it too.
        return


def _is_lost(target: Path) -> bool:
    try:
        return bool(json.loads(target.read_text(encoding="utf-8"))["kind"] == "lost")
    except (OSError, ValueError, KeyError):
        return False
