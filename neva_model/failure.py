"""What a rank that fails leaves for those who wait for the run."""

import json
import os
from pathlib import Path

from neva_recipes.secrets import mask, secret_values

__all__ = ["record_failure"]


def record_failure(run_directory: Path, kind: str, message: str) -> None:
    """Write failure.json unless another rank was first.

    Args:
        run_directory: Directory of the run.
        kind: `user` for a mistake of the user's, `crash` for anything else.
        message: What went wrong; secrets in it are masked.
    """
    failure = {
        "rank": int(os.environ.get("RANK", "0")),
        "kind": kind,
        "message": mask(message, secret_values(os.environ)),
    }
    try:
        with (run_directory / "failure.json").open("x", encoding="utf-8") as file:
            json.dump(failure, file)
    except OSError:
        # Another rank was first, or the disk is full; standard error says it too.
        return
