"""The information that a checkpoint directory holds about itself, and finding checkpoints."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict, TypeVar

from neva_recipes.config import CheckpointError, Recipe, UserError
from neva_recipes.plan.origins.checkpoints import (
    BESIDE_ADAPTERS,
    is_checkpoint,
    is_without,
    model_differences,
    read_saved_recipe,
)
from neva_recipes.run_directory.layout import CHECKPOINTS, RECIPE_FILE
from neva_recipes.run_directory.names import INFORMATION_FILE, list_checkpoints
from neva_recipes.run_directory.standing import lacks_checkpoint
from neva_recipes.storage.checkpoints import read_record, record_text, require_files
from neva_recipes.storage.digests import digests_of, files_below
from neva_recipes.terminal import tell

__all__ = [
    "BaseRecord",
    "CheckpointInformation",
    "SavedAdapters",
    "Validation",
    "check_same_model",
    "complete_validation",
    "is_gone",
    "read_information",
    "recorded_information",
    "resolve_checkpoint",
    "saved_recipe",
    "with_newest",
]

_Used = TypeVar("_Used")

Validation = Literal["due", "done"]
"""Whether the validation of a step is still due, or its results have been added to the checkpoint of the step."""


class BaseRecord(TypedDict):
    """Weights that adapters were trained beside, which their checkpoint does not hold.

    Attributes:
        source: The checkpoint or directory they are in.
        from_run: The same, from the directory of the run with the adapters: both may be moved together.
        digest: A digest of its files, by which others are told apart.
    """

    source: str
    from_run: str
    digest: str


class SavedAdapters(NamedTuple):
    """A checkpoint that holds only what was trained.

    Attributes:
        checkpoint: The checkpoint.
        information: Its record.
    """

    checkpoint: Path
    information: "CheckpointInformation"


@dataclass(frozen=True)
class CheckpointInformation:
    """Facts about a checkpoint, besides its tensors, stored as JSON.

    Attributes:
        step: Optimizer steps taken.
        consumed_samples: Training samples taken, over all ranks and epochs.
        metrics: Last logged value of each metric.
        projector_digest: SHA-256 of the projector's weights; `None` without a projector.
        world_size: Number of processes that saved it.
        tensor_model_parallel_size: Layout that saved it.
        pipeline_model_parallel_size: Layout that saved it.
        has_average: Whether it contains averaged (EMA) weights.
        context_parallel_size: Layout that saved it.
        virtual_pipeline_model_parallel_size: Layout that saved it.
        vocabulary_digest: Digest of the tokenizer's vocabulary; `None` if unknown.
        on_request: Whether it exists only because the run was asked to stop; it is deleted when the run gets further.
        for_best: Whether it exists only because its validation loss was the lowest so far; it is deleted when a later
            one is lower.
        base: For a model with adapters, where the fixed weights of its parts come from; without those that are random.
        validation: State of the validation that belongs to its step, if it was written before it; `None` if there is no
            such validation or it was written after it.
        files: Size in bytes of every other file of the directory.
        digests: Digest of each of these files; empty in checkpoints of older versions.
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
    for_best: bool = False
    base: dict[str, BaseRecord] = field(default_factory=dict)
    validation: Validation | None = None
    files: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    def write(self, directory: Path, digests: dict[str, str] | None = None) -> None:
        """Write the information, with the sizes and digests of the files that are there now.

        Args:
            directory: The checkpoint's directory.
            digests: Digests that are already known, by file name; the others are computed.
        """
        known = digests or {}
        paths = {name: path for name, path in files_below(directory).items() if name != INFORMATION_FILE}
        computed = digests_of(path for name, path in paths.items() if name not in known)
        files = {name: path.stat().st_size for name, path in paths.items()}
        digests = {name: known.get(name) or computed[path] for name, path in paths.items()}
        record = dataclasses.asdict(dataclasses.replace(self, files=files, digests=digests))
        (directory / INFORMATION_FILE).write_text(record_text(record), encoding="utf-8")


def complete_validation(checkpoint: Path, metrics: dict[str, float], *, is_best: bool) -> None:
    """Add the results of its step's validation to a checkpoint that was written before it.

    Args:
        checkpoint: The checkpoint.
        metrics: The results.
        is_best: Whether this result alone would be a reason to write the checkpoint; matters if it was on request.

    Raises:
        CheckpointError: The checkpoint cannot be read or written; it stays unchanged.
    """
    old = recorded_information(checkpoint)
    new = dataclasses.replace(old, metrics={**old.metrics, **metrics}, validation="done")
    if old.on_request and is_best:
        new = dataclasses.replace(new, on_request=False, for_best=True)
    temporary = checkpoint / f".{INFORMATION_FILE}.new"
    try:
        temporary.write_text(record_text(dataclasses.asdict(new)), encoding="utf-8")
        temporary.replace(checkpoint / INFORMATION_FILE)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(
            f"{checkpoint / INFORMATION_FILE}: the validation could not be added: {error.strerror}"
        ) from None


def resolve_checkpoint(path: str | Path) -> Path:
    """Return the checkpoint that a path means: the checkpoint itself, or the newest one of a run.

    Raises:
        CheckpointError: There is no such directory, or the run has no checkpoint yet.
    """
    path = Path(path)
    if is_checkpoint(path):
        return path
    found = list_checkpoints(path / CHECKPOINTS)
    if found:
        return found[-1]
    if (path / RECIPE_FILE).is_file():
        raise CheckpointError(f"{path}: {lacks_checkpoint(path)}")
    raise CheckpointError(f"{path}: neither a run directory nor a checkpoint: {INFORMATION_FILE} is missing")


def with_newest(path: str | Path, use: Callable[[Path], _Used]) -> _Used:
    """Return what a function makes of a run's newest checkpoint, or of a given checkpoint.

    If the run removes its checkpoint meanwhile, the next newest one is taken.

    Args:
        path: The run or checkpoint.
        use: The function.

    Raises:
        CheckpointError: There is no such checkpoint.
    """
    while True:
        checkpoint = resolve_checkpoint(path)
        try:
            return use(checkpoint)
        except UserError:
            # A run that is still going removes checkpoints that newer ones have replaced.
            if not is_gone(checkpoint, path):
                raise
            tell("note", f"{checkpoint} was removed by its run: taking the next")


def is_gone(checkpoint: Path, named: str | Path) -> bool:
    """Return whether the named run, which is still going or has been cleaned up, has removed a checkpoint.

    Args:
        checkpoint: The result of `resolve_checkpoint`.
        named: Its argument; a checkpoint that is named itself is the user's responsibility.
    """
    return checkpoint != Path(named) and not checkpoint.is_dir()


def read_information(checkpoint: Path) -> CheckpointInformation:
    """Read a checkpoint's information and check its files: their content, but only the size of tensor files.

    Raises:
        CheckpointError: The directory or a file is missing or damaged; the message names an alternative.
    """
    require_files(checkpoint)
    return recorded_information(checkpoint)


def recorded_information(checkpoint: Path) -> CheckpointInformation:
    """Return the content of checkpoint.json, without looking at other files.

    Raises:
        CheckpointError: The file is missing, unreadable or damaged.
    """
    try:
        return CheckpointInformation(**read_record(checkpoint))
    except TypeError as error:
        raise CheckpointError(f"{checkpoint / INFORMATION_FILE}: cannot be read: {error}") from None


def saved_recipe(checkpoint: Path) -> Recipe:
    """Return the recipe that a checkpoint was trained with, as `read_saved_recipe` does.

    Raises:
        RecipeError: The file is missing or not a valid recipe.
    """
    return read_saved_recipe(checkpoint)


def check_same_model(checkpoint: Path, saved: Recipe, recipe: Recipe, parts: tuple[str, ...]) -> None:
    """Raise `CheckpointError` naming the first field in which the model of a checkpoint differs from the recipe's.

    Args:
        checkpoint: The checkpoint, for the message.
        saved: The recipe it was trained with.
        recipe: The recipe that wants to load it.
        parts: The parts to load, of `language`, `vision` and `projector`.
    """
    for part in parts:
        if is_without(saved, part):
            raise CheckpointError(f"{checkpoint}: {BESIDE_ADAPTERS}")
        for path, theirs, ours in model_differences(saved, recipe, part):
            if path == f"model.{part}":
                raise CheckpointError(f"{checkpoint}: has no {part}; it was trained by the recipe {saved.name}")
            if not path.startswith(f"model.{part}."):
                raise CheckpointError(f"{checkpoint}: the {part} was made for {path}={theirs}, the recipe has {ours}")
            raise CheckpointError(f"{checkpoint}: {path} is {theirs} there and {ours} in the recipe")
