"""Rules on dividing processes, layers and batches."""

from collections.abc import Callable, Iterator

from neva_recipes.config import Recipe
from neva_recipes.plan._sizes import devices_per_node, model_parallel_size
from neva_recipes.plan.checks._nearest import nearest, nearest_divisors, nearest_multiples
from neva_recipes.plan.findings import Finding, error

__all__ = ["division_rules", "parallel_rules"]

_TENSOR = "parallel.tensor_model_parallel_size"
_PIPELINE = "parallel.pipeline_model_parallel_size"
_VIRTUAL = "parallel.virtual_pipeline_model_parallel_size"
_CONTEXT = "parallel.context_parallel_size"
_LAYERS = "model.language.num_layers"


def world_size(recipe: Recipe) -> Iterator[Finding]:
    """The processes make up whole replicas of the model."""
    nodes, devices, replica = recipe.trainer.num_nodes, devices_per_node(recipe), model_parallel_size(recipe)
    if nodes * devices % replica:
        yield error(
            "world-size",
            f"{nodes * devices} processes are not a multiple of the {replica} that one replica of the model takes",
            recipe,
            "trainer.num_nodes",
            "trainer.devices",
            _TENSOR,
            _PIPELINE,
            _CONTEXT,
            remedies=[{"trainer.devices": n} for n in nearest(devices, lambda n: nodes * n % replica == 0)],
        )


def global_batch(recipe: Recipe) -> Iterator[Finding]:
    """The global batch divides into microbatches of every replica."""
    processes = recipe.trainer.num_nodes * devices_per_node(recipe)
    if processes % model_parallel_size(recipe):
        return  # `world-size` speaks of it
    replicas = processes // model_parallel_size(recipe)
    total, micro = recipe.data.global_batch_size, recipe.data.micro_batch_size
    if total % (micro * replicas):
        smaller = [{"data.micro_batch_size": n} for n in nearest_divisors(micro, total // replicas or 1)]
        yield error(
            "global-batch",
            f"{total} samples are not a multiple of {micro} samples x {replicas} replicas = {micro * replicas}",
            recipe,
            "data.global_batch_size",
            "data.micro_batch_size",
            remedies=[
                *({"data.global_batch_size": n} for n in nearest_multiples(total, micro * replicas)),
                *(smaller if total % replicas == 0 else []),
            ],
        )


def pipeline_layers(recipe: Recipe) -> Iterator[Finding]:
    """The layers divide over the pipeline stages."""
    layers, stages = recipe.model.language.num_layers, recipe.parallel.pipeline_model_parallel_size
    first = recipe.parallel.num_layers_in_first_pipeline_stage
    last = recipe.parallel.num_layers_in_last_pipeline_stage
    if first is None and last is None and layers % stages:
        yield error(
            "pipeline-layers",
            f"{layers} layers do not divide over {stages} pipeline stages",
            recipe,
            _LAYERS,
            _PIPELINE,
            remedies=[{_PIPELINE: n} for n in nearest_divisors(stages, layers)],
            advice="or give the first or last stage another number of layers "
            "(parallel.num_layers_in_first_pipeline_stage)",
        )


division_rules: tuple[Callable[[Recipe], Iterator[Finding]], ...] = (world_size, global_batch, pipeline_layers)
"""What must hold before a layout can be told at all."""

parallel_rules: tuple[Callable[[Recipe], Iterator[Finding]], ...] = ()
"""The other rules on parallelism."""
