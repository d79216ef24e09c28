"""The source that `from_pretrained` names: a Hugging Face directory, a name on the hub, or one of our own runs."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled

from neva_recipes.config import CheckpointError
from neva_recipes.plan.huggingface import could_be_on_hub, is_huggingface

__all__ = ["find_directory", "is_huggingface_directory"]

_DESCRIPTIONS = ["*.json", "*.model", "*.txt", "*.jinja"]


def is_huggingface_directory(path: Path) -> bool:
    """Return whether `path` has a layout of Hugging Face (or of the original LLaVA), and is not one of our runs."""
    return path.is_dir() and is_huggingface(path)


def find_directory(source: str) -> Path | None:
    """Return the local Hugging Face directory that a source names, after downloading it from the hub if necessary.

    Returns:
        The directory; `None` if the source is a directory of another kind.

    Raises:
        CheckpointError: There is no such directory, and it cannot be downloaded from the hub.
    """
    path = Path(source)
    if path.is_file():
        raise CheckpointError(f"{source}: is a file, expected the directory that it lies in")
    if path.exists():
        return path if is_huggingface_directory(path) else None
    if not could_be_on_hub(source):
        raise CheckpointError(f"{source}: no such directory (a name on the Hugging Face hub looks like owner/name)")
    try:
        directory = Path(snapshot_download(source, allow_patterns=[*_DESCRIPTIONS, "*.safetensors"]))
        if not any(directory.glob("*.safetensors")):
            directory = Path(snapshot_download(source, allow_patterns=[*_DESCRIPTIONS, "*.bin"]))
    except (OSError, OfflineModeIsEnabled, HFValidationError) as error:
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(
            f"{source}: no such directory here, and it cannot be downloaded from the Hugging Face hub: {reason}"
        ) from None
    return directory
