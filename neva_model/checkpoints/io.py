"""Lightning's access to checkpoint files, on top of Megatron's distributed checkpoints."""

from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO

from neva_model.checkpoints.distributed import load_sharded, save_sharded
from neva_recipes.run_directory.removal import remove_directory

__all__ = ["DistributedCheckpointIO"]


class DistributedCheckpointIO(CheckpointIO):
    """Saves and loads sharded state dicts; see `neva_model.checkpoints.distributed`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Save `checkpoint`, whose `information` and `recipe_yaml` entries become readable files."""
        information, recipe_yaml = checkpoint.pop("information"), checkpoint.pop("recipe_yaml")
        save_sharded(checkpoint, Path(path), information, recipe_yaml)

    def load_checkpoint(self, path: str | Path, map_location: object = None, weights_only: bool | None = None) -> Any:
        """Return the plain values of a checkpoint; the caller loads the sharded values."""
        return load_sharded({}, Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint; called on one rank."""
        remove_directory(Path(path))
