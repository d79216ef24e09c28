"""What a checkpoint directory says about itself, and finding checkpoints."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neva_recipes.config import CheckpointError, Recipe, build, load_recipe
from neva_recipes.plan.checkpoints import model_differences

__all__ = [
    "CheckpointInformation",
    "checkpoint_name",
    "check_same_model",
    "check_same_optimizer",
    "list_checkpoints",
    "read_information",
    "resolve_checkpoint",
    "saved_recipe",
]

INFORMATION_FILE = "checkpoint.json"
RECIPE_FILE = "recipe.yaml"
_PREFIX = "step-"


@dataclass(frozen=True)
class CheckpointInformation:
    """Facts beside the tensors of a checkpoint, kept as JSON.

    Attributes:
        step: Optimizer steps taken.
        consumed_samples: Training samples taken, over all ranks and epochs.
        metrics: Last logged value of each metric.
        projector_digest: SHA-256 of the projector's weights; none without a projector.
        world_size: Processes that saved it.
        tensor_model_parallel_size: Layout that saved it.
        pipeline_model_parallel_size: Layout that saved it.
        has_average: Whether averaged (EMA) weights are in it.
        context_parallel_size: Layout that saved it.
        virtual_pipeline_model_parallel_size: Layout that saved it.
        vocabulary_digest: Digest of the tokenizer's vocabulary; none where nobody knows.
        on_request: Whether it is there only because the run was asked to stop, and goes when the run has got further.
        files: Size in bytes of every other file of the directory.
    """

    step: int
    consumed_samples: int
    metrics: dict[str, float]
    projector_digest: str | None
    world_size: int
    tensor_model_parallel_size: int
    pipeline_model_parallel_size: int
    has_average: bool
    context_parallel_size: int = 1
    virtual_pipeline_model_parallel_size: int = 1
    vocabulary_digest: str | None = None
    on_request: bool = False
    files: dict[str, int] = field(default_factory=dict)

    def write(self, directory: Path) -> None:
        """Write the information, with the sizes of the files that are there now."""
        files = {path.name: path.stat().st_size for path in sorted(directory.iterdir())}
        text = json.dumps(dataclasses.asdict(dataclasses.replace(self, files=files)), indent=2)
        (directory / INFORMATION_FILE).write_text(text + "\n", encoding="utf-8")


def checkpoint_name(step: int) -> str:
    """Return the directory name of the checkpoint taken after `step` steps; names sort by step."""
    return f"{_PREFIX}{step:08d}"


def list_checkpoints(checkpoints: Path) -> list[Path]:
    """Return the complete checkpoints under a run's `checkpoints` directory, oldest first.

    A checkpoint gets its final name only when it is whole, so a name is enough.
    """
    if not checkpoints.is_dir():
        return []
    return sorted(path for path in checkpoints.iterdir() if path.is_dir() and path.name.startswith(_PREFIX))


def resolve_checkpoint(path: str | Path) -> Path:
    """Return the checkpoint directory meant by a checkpoint or run directory: of a run, its newest.

    Raises:
        CheckpointError: There is no such directory, or the run has no checkpoint yet.
    """
    path = Path(path)
    if (path / INFORMATION_FILE).is_file() or path.name.startswith(_PREFIX):
        return path
    found = list_checkpoints(path / "checkpoints")
    if found:
        return found[-1]
    if (path / RECIPE_FILE).is_file():
        raise CheckpointError(f"{path}: the run has no checkpoint yet")
    raise CheckpointError(f"{path}: neither a run directory nor a checkpoint: {INFORMATION_FILE} is missing")


def read_information(checkpoint: Path) -> CheckpointInformation:
    """Read a checkpoint's information and check that its files are all there, in full length.

    Raises:
        CheckpointError: The directory or one of its files is missing, unreadable or of another length.
    """
    source = checkpoint / INFORMATION_FILE
    try:
        values: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
        information = CheckpointInformation(**values)
    except FileNotFoundError:
        raise CheckpointError(f"{checkpoint}: {INFORMATION_FILE} is missing: not a complete checkpoint") from None
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{source}: cannot be read: {error}") from None
    for name, size in information.files.items():
        try:
            actual = (checkpoint / name).stat().st_size
        except OSError:
            raise CheckpointError(f"{checkpoint / name}: is missing; use an earlier checkpoint") from None
        if actual != size:
            raise CheckpointError(
                f"{checkpoint / name}: has {actual} bytes, expected {size}: damaged, use an earlier checkpoint"
            )
    return information


def saved_recipe(checkpoint: Path) -> Recipe:
    """Return the recipe a checkpoint was trained with.

    Raises:
        RecipeError: The file is missing or not a valid recipe.
    """
    return build(load_recipe(checkpoint / RECIPE_FILE))


def check_same_optimizer(checkpoint: Path, saved: Recipe, recipe: Recipe) -> None:
    """Raise `CheckpointError` if the optimizer's state has another format than the recipe's optimizer."""
    for path in ("parallel.use_distributed_optimizer", "precision.precision"):
        section, name = path.split(".")
        theirs, ours = getattr(getattr(saved, section), name), getattr(getattr(recipe, section), name)
        if theirs != ours:
            raise CheckpointError(
                f"{checkpoint}: {path} is {theirs} there and {ours} in the recipe; a run is resumed with the same"
            )


def check_same_model(checkpoint: Path, saved: Recipe, recipe: Recipe, parts: tuple[str, ...]) -> None:
    """Raise `CheckpointError` naming the first field in which the model of a checkpoint differs from the recipe's.

    Args:
        checkpoint: The checkpoint, for the message.
        saved: The recipe it was trained with.
        recipe: The recipe that wants to load it.
        parts: Which of `language`, `vision` and `projector` are to be loaded.
    """
    for part in parts:
        for path, theirs, ours in model_differences(saved, recipe, part):
            if path == f"model.{part}":
                raise CheckpointError(f"{checkpoint}: has no {part}; it was trained by the recipe {saved.name}")
            if not path.startswith(f"model.{part}."):
                raise CheckpointError(f"{checkpoint}: the {part} was made for {path}={theirs}, the recipe has {ours}")
            raise CheckpointError(f"{checkpoint}: {path} is {theirs} there and {ours} in the recipe")
