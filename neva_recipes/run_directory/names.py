"""The names of runs, of checkpoints and the files in them, and of recipes. Standard library only."""

import re
from pathlib import Path

__all__ = [
    "DESCRIPTIONS",
    "INFORMATION_FILE",
    "LONGEST_NAME",
    "checkpoint_name",
    "earlier_recipe_name",
    "earlier_recipes",
    "is_shard",
    "list_checkpoints",
    "listed_step",
    "name_problem",
    "short_checkpoint_name",
    "step_of",
]

INFORMATION_FILE = "checkpoint.json"

DESCRIPTIONS = "huggingface"
"""The folder of a converted checkpoint with what lay beside the weights: tokenizer, settings, licence."""

LONGEST_NAME = 200
"""Bytes of a run's name; the time is appended to it, and file systems allow 255 bytes."""

_NAME = re.compile(r"step-(\d+)")


def name_problem(name: str) -> str | None:
    """Return why a run, and so its directory, cannot have this name; `None` if it can."""
    if not name.strip():
        return "a run needs a name that is not empty"
    if name[0] in "-.":
        return f"a run's name cannot start with {name[0]!r}"
    if "/" in name or any(not character.isprintable() for character in name):
        return "a run's name cannot hold '/', line breaks or control characters"
    if len(name.encode()) > LONGEST_NAME:
        return f"a run's name cannot be longer than {LONGEST_NAME} bytes"
    return None


def checkpoint_name(step: int) -> str:
    """Return the directory name of the checkpoint taken after `step` steps."""
    return f"step-{step:08d}"


def short_checkpoint_name(step: int) -> str:
    """Return a name of the checkpoint for users to type, which `resume --from` takes too."""
    return f"step-{step}"


def earlier_recipe_name(number: int) -> str:
    """Return the file name of the recipe that a run had before it was resumed with another; the first is number 1."""
    return f"recipe.{number}.yaml"


def earlier_recipes(run_dir: Path) -> list[Path]:
    """Return the recipes that a run had before it was resumed with others, oldest first; ignores copies by users."""
    found: list[Path] = []
    while (path := run_dir / earlier_recipe_name(len(found) + 1)).exists():
        found.append(path)
    return found


def step_of(path: Path) -> int | None:
    """Return the step in the name of a checkpoint; `None` for any other name, such as that of a copy."""
    match = _NAME.fullmatch(path.name)
    return None if match is None else int(match[1])


def list_checkpoints(checkpoints: Path) -> list[Path]:
    """Return the directories with the name of a checkpoint in a run's `checkpoints` directory, oldest first.

    A directory gets such a name when it is complete and loses it before any of it is removed, so the name shows that a
    checkpoint is complete unless it was damaged.
    """
    if not checkpoints.is_dir():
        return []
    steps = {path: step for path in checkpoints.iterdir() if (step := step_of(path)) is not None and path.is_dir()}
    return sorted(steps, key=steps.__getitem__)


def listed_step(checkpoint: Path) -> int:
    """Return the step of a checkpoint that `list_checkpoints` has found."""
    step = step_of(checkpoint)
    assert step is not None
    return step


def is_shard(name: str) -> bool:
    """Return whether a file of a checkpoint holds tensors and may be large; all other files are small."""
    return name.endswith(".distcp")
