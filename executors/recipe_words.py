"""Words for the size of a job, which the recipe says and no executor."""

from collections.abc import Mapping

__all__ = ["hint_of_recipe"]

_WORDS: Mapping[str, tuple[str, ...]] = {
    "trainer.devices": (
        *("devices", "gpus", "gpus_per_node", "n_gpus", "nproc_per_node", "ntasks", "ntasks_per_node", "num_gpus"),
        *("tasks", "tasks_per_node"),
    ),
    "trainer.num_nodes": ("n_nodes", "nnodes", "node_count", "nodes", "num_nodes"),
}
"""Words of Slurm and of other launchers, by the field of the recipe that is meant."""


def hint_of_recipe(name: str) -> str:
    """Return the end of a message about a field that an executor does not have: the field of the recipe that is meant.

    Args:
        name: The field as it was written, such as `gpus-per-node`.

    Returns:
        Empty if no field of a recipe is meant.
    """
    word = name.replace("-", "_").lower()
    fields = [field for field, words in _WORDS.items() if word in words]
    return f" (did you mean {fields[0]}, which is a field of the recipe?)" if fields else ""
