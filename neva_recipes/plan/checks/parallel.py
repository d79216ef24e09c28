"""Rules on dividing processes, layers and batches."""

from collections.abc import Iterator

from neva_recipes.config import Recipe
from neva_recipes.plan.checks._rules import Found, Rule, Way, around, found, multiples, of_new, tensor_sizes
from neva_recipes.plan.cost.sizes import data_parallel_size, devices_per_node, layers_per_stage, model_parallel_size
from neva_recipes.plan.findings import error, warning

__all__ = ["division_rules", "parallel_rules"]

_DEVICES = "trainer.devices"
_NODES = "trainer.num_nodes"
_TENSOR = "parallel.tensor_model_parallel_size"
_PIPELINE = "parallel.pipeline_model_parallel_size"
_VIRTUAL = "parallel.virtual_pipeline_model_parallel_size"
_FIRST = "parallel.num_layers_in_first_pipeline_stage"
_LAST = "parallel.num_layers_in_last_pipeline_stage"
_CONTEXT = "parallel.context_parallel_size"
_CONTEXT_TYPE = "parallel.cp_comm_type"
_SEQUENCE = "parallel.sequence_parallel"
_LAYERS = "model.language.num_layers"
_HEADS = "model.language.num_attention_heads"
_GROUPS = "model.language.num_query_groups"
_FFN = "model.language.ffn_hidden_size"
_GLOBAL = "data.global_batch_size"
_MICRO = "data.micro_batch_size"


def world_size(recipe: Recipe) -> Iterator[Found]:
    """The processes divide into whole replicas of the model."""
    nodes, devices, replica = recipe.trainer.num_nodes, devices_per_node(recipe), model_parallel_size(recipe)
    if nodes * devices % replica:
        sizes = (_TENSOR, _PIPELINE, _CONTEXT)
        parts = {path: getattr(recipe.parallel, path.rpartition(".")[2]) for path in sizes}
        split = [path for path, size in parts.items() if size > 1]
        yield found(
            error(
                "world-size",
                f"{nodes} x {devices} = {nodes * devices} processes are not a multiple of the {replica} "
                "that one replica of the model takes",
                recipe,
                _NODES,
                _DEVICES,
                *split,
            ),
            *around(_DEVICES, devices, highest=devices + replica),
            *(tensor_sizes(recipe)[0] if path == _TENSOR else around(path, parts[path])[0] for path in split),
        )


def global_batch(recipe: Recipe) -> Iterator[Found]:
    """The global batch divides into micro batches of every replica."""
    replicas = data_parallel_size(recipe)
    if replicas is None:
        return  # `world-size` reports it
    total, micro = recipe.data.global_batch_size, recipe.data.micro_batch_size
    if total % (micro * replicas):
        yield found(
            error(
                "global-batch",
                f"{total} samples are not a multiple of {micro} samples x {replicas} replicas = {micro * replicas}",
                recipe,
                _GLOBAL,
                _MICRO,
            ),
            *multiples(_GLOBAL, total, micro * replicas),
            *around(_MICRO, micro, highest=total),
        )


def pipeline_layers(recipe: Recipe) -> Iterator[Found]:
    """The layers divide over the pipeline stages; the first and the last stage may have a given number."""
    parallel, layers = recipe.parallel, recipe.model.language.num_layers
    stages, first, last = (
        parallel.pipeline_model_parallel_size,
        parallel.num_layers_in_first_pipeline_stage,
        parallel.num_layers_in_last_pipeline_stage,
    )
    if layers_per_stage(recipe) is not None:
        return
    if first is None and last is None:
        yield found(
            error(
                "pipeline-layers",
                f"{layers} layers do not divide over {stages} pipeline stages",
                recipe,
                _LAYERS,
                _PIPELINE,
            ),
            *around(_PIPELINE, stages, highest=layers),
            # The first stage also has the embedding and the vision tower, so fewer layers come before more.
            [{_FIRST: size} for size in (*range(layers // stages, 0, -1), *range(layers // stages + 1, layers))],
        )
        return
    given = [path for path, number in ((_FIRST, first), (_LAST, last)) if number is not None]
    others = stages - len(given)
    left = layers - (first or 0) - (last or 0)
    message = (
        f"a pipeline of {stages} has no separate first and last stage"
        if others < 0
        else f"{left} of {layers} layers remain for {others} other pipeline stages"
    )
    yield found(
        error("uneven-stages", message, recipe, *given, _LAYERS, _PIPELINE),
        *(way for path in given for way in _other_sizes(path, recipe)),
        [dict.fromkeys(given)],
    )


def _other_sizes(path: str, recipe: Recipe) -> tuple[Way, Way]:
    size = getattr(recipe.parallel, path.rpartition(".")[2])
    return around(path, size, highest=recipe.model.language.num_layers)


def virtual_stages(recipe: Recipe) -> Iterator[Found]:
    """The layers of every pipeline stage divide over its virtual stages."""
    stages, pieces = (
        recipe.parallel.pipeline_model_parallel_size,
        recipe.parallel.virtual_pipeline_model_parallel_size or 1,
    )
    sizes = layers_per_stage(recipe)
    if pieces == 1 or sizes is None:
        return
    if stages == 1:
        message = f"{pieces} pieces of each stage need a pipeline of two stages or more"
        yield found(
            error("virtual-pipeline", message, recipe, _VIRTUAL, _PIPELINE), [{_VIRTUAL: None}], around(_PIPELINE, 1)[1]
        )
        return
    uneven = [size for size in sizes if size % pieces]
    if uneven:
        yield found(
            error(
                "virtual-layers",
                f"a stage of {uneven[0]} layers does not divide into {pieces} pieces",
                recipe,
                _VIRTUAL,
                _PIPELINE,
                _LAYERS,
            ),
            *around(_VIRTUAL, pieces, lowest=2, highest=max(sizes)),
            [{_VIRTUAL: None}],
        )


def virtual_ends(recipe: Recipe) -> Iterator[Found]:
    """With virtual stages, a pipeline of two stages has a given number of layers for one stage at most."""
    parallel, pieces = recipe.parallel, recipe.parallel.virtual_pipeline_model_parallel_size or 1
    first, last = parallel.num_layers_in_first_pipeline_stage, parallel.num_layers_in_last_pipeline_stage
    if pieces > 1 and parallel.pipeline_model_parallel_size == 2 and first is not None and last is not None:
        # Core divides by the number of stages in between: get_transformer_layer_offset in transformer_layer.py.
        message = "with pieces and no stage between the first and the last, Megatron-Core takes one of their numbers"
        yield found(
            error("virtual-ends", message, recipe, _FIRST, _LAST, _VIRTUAL, _PIPELINE),
            [{_LAST: None}],
            [{_FIRST: None}],
            [{_VIRTUAL: None}],
        )


division_rules: tuple[Rule, ...] = (world_size, global_batch, pipeline_layers, virtual_stages)
"""Rules that must hold before a layout exists at all."""


def tensor_heads(recipe: Recipe) -> Iterator[Found]:
    """Heads and query groups divide over the tensor-parallel processes."""
    language, tensor = recipe.model.language, recipe.parallel.tensor_model_parallel_size
    heads, groups, head = language.num_attention_heads, language.num_query_groups, language.head_size
    ways = tensor_sizes(recipe, highest=heads)
    if heads % tensor:
        message = f"{heads} heads are not a multiple of {tensor} processes"
        yield found(error("tensor-parallel-heads", message, recipe, _HEADS, _TENSOR), *ways)
    elif groups % tensor and tensor % groups:
        message = f"neither of {groups} groups and {tensor} processes is a multiple of the other"
        yield found(error("tensor-parallel-groups", message, recipe, _GROUPS, _TENSOR), *ways)
    elif (heads + 2 * groups) * head % tensor:
        message = (
            f"{heads} query and 2 x {groups} key/value heads of {head} numbers do not divide over {tensor} processes"
        )
        paths = (_HEADS, _GROUPS, "model.language.kv_channels", _TENSOR)
        yield found(error("tensor-parallel-projection", message, recipe, *paths), *ways)


def tensor_feed_forward(recipe: Recipe) -> Iterator[Found]:
    """The feed-forward layer divides over the tensor-parallel processes."""
    width, tensor = recipe.model.language.ffn_hidden_size, recipe.parallel.tensor_model_parallel_size
    if width % tensor:
        message = f"{width} is not a multiple of {tensor} processes"
        yield found(
            error("tensor-parallel-ffn", message, recipe, _FFN, _TENSOR),
            *tensor_sizes(recipe, highest=width),
            *of_new(recipe.model.language, *multiples(_FFN, width, tensor)),
        )


def sequence_parallel(recipe: Recipe) -> Iterator[Found]:
    """Sequence parallelism needs several tensor-parallel processes."""
    if recipe.parallel.sequence_parallel and recipe.parallel.tensor_model_parallel_size == 1:
        message = "sequence parallelism needs tensor_model_parallel_size > 1"
        yield found(
            error("sequence-parallel", message, recipe, _SEQUENCE, _TENSOR), [{_SEQUENCE: False}], around(_TENSOR, 1)[1]
        )


def context_heads(recipe: Recipe) -> Iterator[Found]:
    """a2a gives each context-parallel process some of the heads of every sequence."""
    language, parallel = recipe.model.language, recipe.parallel
    context, tensor = parallel.context_parallel_size, parallel.tensor_model_parallel_size
    if context == 1 or parallel.cp_comm_type != "a2a" or language.num_attention_heads % tensor:
        return
    heads, groups = language.num_attention_heads // tensor, max(1, language.num_query_groups // tensor)
    for path, number, name in ((_HEADS, heads, "query"), (_GROUPS, groups, "key/value")):
        if number % context:
            message = f"a2a divides the {number} {name} heads of a process over {context} of them, which does not go"
            yield found(
                error("context-parallel-heads", message, recipe, path, _CONTEXT_TYPE, _CONTEXT, _TENSOR),
                [{_CONTEXT_TYPE: "p2p"}],
                around(_CONTEXT, context)[0],
            )
            return


def context_window(recipe: Recipe) -> Iterator[Found]:
    """With p2p each process sees the keys of one other at a time; Transformer Engine has no window for these."""
    parallel, window = recipe.parallel, "model.language.sliding_window"
    if recipe.model.language.sliding_window is None or parallel.context_parallel_size == 1:
        return
    if parallel.cp_comm_type == "p2p":
        message = "p2p passes keys round in pieces, in which a window cannot be cut: it needs all_gather or a2a"
        yield found(
            error("context-parallel-window", message, recipe, window, _CONTEXT_TYPE, _CONTEXT),
            [{_CONTEXT_TYPE: "all_gather"}],
            [{_CONTEXT_TYPE: "a2a"}],
            around(_CONTEXT, parallel.context_parallel_size)[0],
        )


def context_type_unused(recipe: Recipe) -> Iterator[Found]:
    """The kind of context-parallel communication matters only with several processes."""
    if recipe.parallel.context_parallel_size == 1 and recipe.parallel.cp_comm_type != "p2p":
        message = "has no effect without context parallelism"
        yield found(
            warning("context-type-unused", message, recipe, _CONTEXT_TYPE, _CONTEXT),
            [{_CONTEXT_TYPE: "p2p"}],
        )


def param_gather(recipe: Recipe) -> Iterator[Found]:
    """Weights are gathered only if the distributed optimizer has sharded them."""
    parallel = recipe.parallel
    gather = "parallel.overlap_param_gather"
    needed = {
        path: True
        for path in ("parallel.use_distributed_optimizer", "parallel.overlap_grad_reduce")
        if not getattr(parallel, path.rpartition(".")[2])
    }
    if parallel.overlap_param_gather and needed:
        message = "overlap_param_gather needs use_distributed_optimizer and overlap_grad_reduce"
        yield found(error("overlap-param-gather", message, recipe, gather, *needed), [needed], [{gather: False}])


parallel_rules: tuple[Rule, ...] = (
    tensor_heads,
    tensor_feed_forward,
    virtual_ends,
    sequence_parallel,
    context_heads,
    context_window,
    context_type_unused,
    param_gather,
)
"""The other rules on parallelism."""
