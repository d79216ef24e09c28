"""Rules on number formats."""

from collections.abc import Iterator

from neva_recipes.config import PlainTable, PrecisionConfig, Recipe
from neva_recipes.plan.checks._rules import Found, Rule, Way, around, found, multiples, of_new, tensor_sizes
from neva_recipes.plan.cost.gpus import Gpu
from neva_recipes.plan.cost.sizes import layers_per_stage
from neva_recipes.plan.findings import Severity, error, finding, warning

__all__ = ["gpu_rules", "precision_rules"]

_FP8 = "precision.fp8"
_RECIPE = "precision.fp8_recipe"
_PARAM = "precision.fp8_param"
_PRECISION = "precision.precision"
_EDGES = "precision.first_last_layers_bf16"
_START = "precision.num_layers_at_start_in_bf16"
_END = "precision.num_layers_at_end_in_bf16"
_TENSOR = "parallel.tensor_model_parallel_size"
_CONTEXT = "parallel.context_parallel_size"
_LAYERS = "model.language.num_layers"
_HIDDEN = "model.language.hidden_size"
_FFN = "model.language.ffn_hidden_size"
_HEADS = "model.language.num_attention_heads"
_GROUPS = "model.language.num_query_groups"
_HEAD_SIZE = "model.language.kv_channels"

_WITHOUT_FP8: Way = [{_FP8: None}, {_FP8: None, _PARAM: False}]

_DELAYED = ("fp8_amax_history_len", "fp8_amax_compute_algo", "fp8_margin")
"""Options of delayed scaling; the other FP8 recipes keep no history."""

_DEFAULTS = {name: field.default for name, field in PrecisionConfig.__dataclass_fields__.items()}


def _changed(recipe: Recipe, *names: str) -> PlainTable:
    """Return the default values of the given precision fields that are not at their default."""
    return {
        f"precision.{name}": _DEFAULTS[name] for name in names if getattr(recipe.precision, name) != _DEFAULTS[name]
    }


def fp8_in_bf16(recipe: Recipe) -> Iterator[Found]:
    """FP8 products need bf16 training."""
    if recipe.precision.fp8 is not None and recipe.precision.precision != "bf16":
        message = f"FP8 needs precision=bf16, not {recipe.precision.precision}"
        yield found(error("fp8-precision", message, recipe, _FP8, _PRECISION), [{_PRECISION: "bf16"}], _WITHOUT_FP8)


def fp8_on_gpu(recipe: Recipe) -> Iterator[Found]:
    """FP8 needs a GPU."""
    if recipe.precision.fp8 is not None and recipe.trainer.accelerator == "cpu":
        accelerator = "trainer.accelerator"
        message = "FP8 needs a GPU with Transformer Engine"
        yield found(error("fp8-cpu", message, recipe, _FP8, accelerator), _WITHOUT_FP8, [{accelerator: "gpu"}])


def fp8_weights(recipe: Recipe) -> Iterator[Found]:
    """Weights in FP8 need FP8 products and a sharded optimizer, and are rounded before training starts."""
    if not recipe.precision.fp8_param:
        return
    sharded = "parallel.use_distributed_optimizer"
    if recipe.precision.fp8 is None:
        message = "weights in FP8 need products in FP8"
        yield found(error("fp8-param", message, recipe, _PARAM, _FP8), [{_PARAM: False}], [{_FP8: "hybrid"}])
    elif not recipe.parallel.use_distributed_optimizer:
        message = "weights in FP8 need the distributed optimizer, which keeps their fp32 copies"
        yield found(
            error("fp8-param-optimizer", message, recipe, _PARAM, sharded), [{sharded: True}], [{_PARAM: False}]
        )
    elif recipe.precision.fp8_recipe == "mxfp8":
        # Core uses one buffer for mxfp8 weights and their gradients (distributed/param_and_grad_buffer.py). No recipe
        # sets the option with which it uses the buffer for one after the other.
        message = "Megatron-Core keeps mxfp8 weights and their gradients in one buffer, where they overwrite each other"
        yield found(
            error("fp8-param-mxfp8", message, recipe, _PARAM, _RECIPE), [{_PARAM: False}], [{_RECIPE: "tensorwise"}]
        )
    else:
        message = "the fp32 master weights are taken from weights already rounded to FP8"
        yield found(warning("fp8-param-rounded", message, recipe, _PARAM), [{_PARAM: False}])


def fp8_sizes(recipe: Recipe) -> Iterator[Found]:
    """The matrices that each process multiplies have sizes that FP8 kernels accept."""
    precision, language = recipe.precision, recipe.model.language
    tensor = recipe.parallel.tensor_model_parallel_size
    if precision.fp8 is None or language.num_attention_heads % tensor or language.ffn_hidden_size % tensor:
        return
    # Megatron-Core, fp8_utils.get_fp8_align_size.
    unit = 32 if precision.fp8_recipe == "mxfp8" else 16
    heads, groups, size = language.num_attention_heads, language.num_query_groups, language.head_size
    hidden, width = language.hidden_size, language.ffn_hidden_size
    wider = of_new(language, *multiples(_HIDDEN, hidden, unit))
    wider_feed_forward = of_new(language, *multiples(_FFN, width, unit * tensor))
    sides: tuple[tuple[int, str, tuple[str, ...], tuple[Way, ...]], ...] = (
        (hidden, "the residual stream", (_HIDDEN,), wider),
        (width // tensor, "a process's part of the feed-forward layer", (_FFN, _TENSOR), wider_feed_forward),
        (heads * size // tensor, "a process's part of the query heads", (_HEADS, _HEAD_SIZE, _TENSOR), ()),
        (
            (heads + 2 * groups) * size // tensor,
            "a process's part of all heads",
            (_HEADS, _GROUPS, _HEAD_SIZE, _TENSOR),
            (),
        ),
    )
    for side, what, paths, ways in sides:
        if side % unit:
            message = f"{what} is {side} wide, FP8 with {precision.fp8_recipe} scaling needs a multiple of {unit}"
            yield found(
                error("fp8-sizes", message, recipe, *paths, _RECIPE), tensor_sizes(recipe)[0], *ways, _WITHOUT_FP8
            )
            return


def delayed_options(recipe: Recipe) -> Iterator[Found]:
    """The history of maxima belongs to delayed scaling."""
    changed = _changed(recipe, *_DELAYED)
    if recipe.precision.fp8 is not None and recipe.precision.fp8_recipe != "delayed" and changed:
        message = f"{recipe.precision.fp8_recipe} scaling keeps no history and takes no notice of these"
        yield found(error("fp8-delayed-options", message, recipe, *changed, _RECIPE), [changed], [{_RECIPE: "delayed"}])


def unused_options(recipe: Recipe) -> Iterator[Found]:
    """Options of FP8 need FP8."""
    changed = _changed(recipe, "fp8_recipe", *_DELAYED, "first_last_layers_bf16")
    if recipe.precision.fp8 is None and changed:
        message = "has no effect without FP8" if len(changed) == 1 else "have no effect without FP8"
        yield found(warning("fp8-unused", message, recipe, *changed, _FP8), [changed], [{_FP8: "hybrid"}])


def edge_layers(recipe: Recipe) -> Iterator[Found]:
    """Some layers but not all stay in bf16, and they lie in the first and the last pipeline stage."""
    precision, layers = recipe.precision, recipe.model.language.num_layers
    start, end = precision.num_layers_at_start_in_bf16, precision.num_layers_at_end_in_bf16
    if not precision.first_last_layers_bf16:
        changed = _changed(recipe, "num_layers_at_start_in_bf16", "num_layers_at_end_in_bf16")
        if changed:
            message = "layers are kept in bf16 only with first_last_layers_bf16"
            yield found(warning("fp8-edges-unused", message, recipe, *changed, _EDGES), [changed], [{_EDGES: True}])
        return
    if precision.fp8 is None:
        return  # `fp8-unused` reports it
    if precision.fp8_recipe == "delayed":
        message = "delayed scaling cannot leave layers out"
        yield found(
            error("fp8-edges-delayed", message, recipe, _EDGES, _RECIPE), [{_EDGES: False}], [{_RECIPE: "tensorwise"}]
        )
    most = layers // recipe.parallel.pipeline_model_parallel_size
    for path, number in ((_START, start), (_END, end)):
        if number > most and layers_per_stage(recipe) is not None:
            message = f"more than the {most} layers of a pipeline stage"
            paths = (path, _LAYERS, "parallel.pipeline_model_parallel_size")
            yield found(error("fp8-edges", message, recipe, *paths), around(path, number, highest=most)[0])
            return
    if start + end >= layers or start + end == 0:
        what = "every layer stays in bf16: nothing is in FP8" if start + end else "no layer is kept in bf16"
        yield found(
            warning("fp8-edges-all-or-none", what, recipe, _EDGES, _START, _END, _LAYERS),
            [{_EDGES: False}],
            [{_START: 1, _END: 1}],
        )


def vision_stays(recipe: Recipe) -> Iterator[Found]:
    """The vision tower is not in FP8."""
    vision = recipe.model.vision
    if recipe.precision.fp8 is not None and vision is not None and vision.trains:
        path = "model.vision.freeze"
        message = "FP8 is for the language model, whose rows are padded for it: the vision tower trains in bf16"
        yield found(warning("fp8-vision", message, recipe, _FP8, path), [{path: True}], _WITHOUT_FP8)


def context_precision(recipe: Recipe) -> Iterator[Found]:
    """Transformer Engine's context-parallel attention works in bf16, with head sizes that are multiples of 8."""
    parallel, accelerator = recipe.parallel, recipe.trainer.accelerator
    if parallel.context_parallel_size == 1 or accelerator == "cpu":
        return
    severity: Severity = "error" if accelerator == "gpu" else "warning"
    if recipe.precision.precision == "fp32":
        message = "on GPUs Transformer Engine has no fp32 attention over several processes"
        yield found(
            finding(severity, "context-parallel-precision", message, recipe, _CONTEXT, _PRECISION),
            [{_PRECISION: "bf16"}],
            [{_CONTEXT: 1}],
        )
    size, path = recipe.model.language.head_size, "model.language.kv_channels"
    if size % 8:
        message = (
            f"on GPUs Transformer Engine's attention over several processes takes heads of a multiple of 8, not {size}"
        )
        yield found(
            finding(severity, "context-parallel-head-size", message, recipe, _CONTEXT, path),
            [{_CONTEXT: 1}],
            *of_new(recipe.model.language, *multiples(path, size, 8)),
        )


precision_rules: tuple[Rule, ...] = (
    fp8_in_bf16,
    fp8_on_gpu,
    fp8_weights,
    fp8_sizes,
    delayed_options,
    unused_options,
    edge_layers,
    vision_stays,
    context_precision,
)


def fp8_hardware(recipe: Recipe, gpu: Gpu) -> Iterator[Found]:
    """Each type of GPU supports some FP8 scaling recipes."""
    chosen = recipe.precision.fp8_recipe
    if recipe.precision.fp8 is None or recipe.trainer.accelerator == "cpu":
        return
    others: list[Way] = [[{_RECIPE: other}] for other in ("tensorwise", "delayed", "mxfp8") if other != chosen]
    if gpu.fp8_tflops is None:
        message = f"{gpu.name} ({gpu.architecture}) has no FP8"
        yield found(error("fp8-hardware", message, recipe, _FP8), _WITHOUT_FP8)
    elif chosen == "mxfp8" and gpu.architecture != "Blackwell":
        message = f"mxfp8 scaling needs a Blackwell GPU, {gpu.name} is {gpu.architecture}"
        yield found(error("fp8-hardware", message, recipe, _RECIPE), *others, _WITHOUT_FP8)
    elif chosen == "blockwise" and gpu.architecture == "Blackwell":
        message = f"blockwise scaling is Hopper's; {gpu.name} is Blackwell, whose own is mxfp8"
        yield found(warning("fp8-blockwise", message, recipe, _RECIPE), [{_RECIPE: "mxfp8"}], [{_RECIPE: "tensorwise"}])
    elif chosen == "blockwise" and gpu.architecture != "Hopper":
        message = f"blockwise scaling needs a Hopper GPU, {gpu.name} is {gpu.architecture}"
        yield found(error("fp8-hardware", message, recipe, _RECIPE), *others, _WITHOUT_FP8)


gpu_rules = (fp8_hardware,)
"""Rules that depend on the type of GPU."""
