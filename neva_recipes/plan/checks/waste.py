"""Rules on layouts and data loaders that work but waste time or memory."""

from collections.abc import Iterator

from neva_recipes.config import LlavaDataConfig, Recipe
from neva_recipes.plan.checks._rules import Found, Rule, found, tensor_sizes
from neva_recipes.plan.cost.sizes import data_parallel_size, devices_per_node
from neva_recipes.plan.findings import warning

__all__ = ["waste_rules"]

_DEVICES = "trainer.devices"
_NODES = "trainer.num_nodes"
_TENSOR = "parallel.tensor_model_parallel_size"
_SEQUENCE = "parallel.sequence_parallel"
_SHARDED = "parallel.use_distributed_optimizer"
_REDUCE = "parallel.overlap_grad_reduce"
_GATHER = "parallel.overlap_param_gather"


def tensor_over_nodes(recipe: Recipe) -> Iterator[Found]:
    """Tensor parallelism communicates within every layer, so it should stay within a machine."""
    nodes, devices, tensor = (
        recipe.trainer.num_nodes,
        devices_per_node(recipe),
        recipe.parallel.tensor_model_parallel_size,
    )
    # The ranks of a tensor-parallel group are consecutive.
    if nodes > 1 and devices % tensor and data_parallel_size(recipe) is not None:
        message = f"groups of {tensor} processes lie across machines of {devices}, and talk twice in every layer"
        yield found(
            warning("tensor-parallel-nodes", message, recipe, _TENSOR, _NODES, _DEVICES),
            tensor_sizes(recipe)[0],
        )


def norms_whole(recipe: Recipe) -> Iterator[Found]:
    """Tensor parallelism goes with sequence parallelism."""
    parallel = recipe.parallel
    if parallel.tensor_model_parallel_size > 1 and not parallel.sequence_parallel:
        message = "without sequence parallelism every process keeps and computes norms and residuals of whole sequences"
        yield found(warning("sequence-parallel-off", message, recipe, _TENSOR, _SEQUENCE), [{_SEQUENCE: True}])


def optimizer_whole(recipe: Recipe) -> Iterator[Found]:
    """Several replicas share the optimizer state."""
    replicas = (data_parallel_size(recipe) or 1) * recipe.parallel.context_parallel_size
    if replicas > 1 and not recipe.parallel.use_distributed_optimizer:
        message = f"{replicas} processes keep the same state of the optimizer, which they could share"
        yield found(warning("optimizer-whole", message, recipe, _SHARDED), [{_SHARDED: True}])


def nothing_to_overlap(recipe: Recipe) -> Iterator[Found]:
    """Overlapping gradient reduction needs several processes."""
    parallel, replicas = recipe.parallel, data_parallel_size(recipe)
    if not parallel.overlap_grad_reduce or replicas is None or replicas * parallel.context_parallel_size > 1:
        return
    message = "there is one replica of the model: no gradients are reduced that could overlap"
    off = {path: False for path in (_REDUCE, _GATHER) if getattr(parallel, path.rpartition(".")[2])}
    yield found(warning("overlap-unused", message, recipe, *off), [off])


def loading_waits(recipe: Recipe) -> Iterator[Found]:
    """Images are decoded while the GPU works."""
    if (
        recipe.trainer.accelerator == "gpu"
        and isinstance(recipe.data, LlavaDataConfig)
        and recipe.data.num_workers == 0
    ):
        workers = "data.num_workers"
        message = "the GPU waits while the training process decodes images"
        yield found(warning("loading-waits", message, recipe, workers, "trainer.accelerator"), [{workers: 2}])


waste_rules: tuple[Rule, ...] = (
    tensor_over_nodes,
    norms_whole,
    optimizer_whole,
    nothing_to_overlap,
    loading_waits,
)
