"""Rules on recomputing activations."""

from collections.abc import Iterator

from neva_recipes.config import PlainTable, Recipe
from neva_recipes.families import language_family
from neva_recipes.plan.checks._rules import Found, Rule, around, found
from neva_recipes.plan.core_release import installed_core
from neva_recipes.plan.cost.sizes import layers_per_stage
from neva_recipes.plan.findings import Severity, error, finding, warning

__all__ = ["recompute_rules"]

_GRANULARITY = "model.recompute_granularity"
_METHOD = "model.recompute_method"
_NUMBER = "model.recompute_num_layers"
_MODULES = "model.recompute_modules"

_TAKES_ANY_CHUNK = ("0.19.2",)
"""Releases of Core that end the last chunk with the stage; the older one runs past its last layer."""


def full_recompute(recipe: Recipe) -> Iterator[Found]:
    """Only full recompute has a method and a number of layers, and it needs both."""
    model = recipe.model
    given = {_METHOD: model.recompute_method, _NUMBER: model.recompute_num_layers}
    nothing = {_GRANULARITY: None, _METHOD: None, _NUMBER: None}
    everything: PlainTable = {
        _GRANULARITY: "full",
        _METHOD: model.recompute_method or "uniform",
        _NUMBER: model.recompute_num_layers or 1,
    }
    if model.recompute_granularity == "full":
        missing = {path: everything[path] for path, value in given.items() if value is None}
        if missing:
            message = "full recompute needs both a method and a number of layers"
            yield found(
                error("recompute-incomplete", message, recipe, _GRANULARITY, _METHOD, _NUMBER), [missing], [nothing]
            )
        return
    unused = [path for path, value in given.items() if value is not None]
    if unused:
        # Core ignores a method with selective recompute, but refuses a number of layers.
        harmless = model.recompute_granularity == "selective" and unused == [_METHOD]
        severity: Severity = "warning" if harmless else "error"
        message = "a method and a number of layers belong to full recompute, nothing is recomputed by them"
        yield found(
            finding(severity, "recompute-unused", message, recipe, *unused, _GRANULARITY),
            [everything, everything | {_MODULES: None}],
            [dict.fromkeys(unused)],
        )


def recomputed_layers(recipe: Recipe) -> Iterator[Found]:
    """The layers to recompute exist; the uniform method may have to divide those of a stage into equal chunks."""
    model, sizes = recipe.model, layers_per_stage(recipe)
    number = model.recompute_num_layers
    if sizes is None or model.recompute_granularity != "full" or number is None or model.recompute_method is None:
        return
    pieces = recipe.parallel.virtual_pipeline_model_parallel_size or 1
    chunks = [size // pieces for size in sizes]
    here = "pipeline stage" if pieces == 1 else "piece of a pipeline stage"
    uneven = [size for size in chunks if size % number]
    if number > max(chunks):
        message = f"more than the {max(chunks)} layers of a {here}"
    elif model.recompute_method == "uniform" and uneven:
        message = f"the {uneven[0]} layers of a {here} are not a multiple of chunks of {number}"
    else:
        return
    if model.recompute_method == "uniform" and installed_core() in _TAKES_ANY_CHUNK:
        return
    paths = [_NUMBER, _METHOD, "model.language.num_layers"]
    paths += ["parallel.pipeline_model_parallel_size"] if len(sizes) > 1 else []
    yield found(
        error("recompute-layers", message, recipe, *paths),
        *around(_NUMBER, number, highest=max(chunks)),
        [{_METHOD: "block"}] if model.recompute_method == "uniform" else [],
    )


def selective_recompute(recipe: Recipe) -> Iterator[Found]:
    """Only selective recompute has modules."""
    model = recipe.model
    if model.recompute_modules and model.recompute_granularity != "selective":
        whole = model.recompute_granularity == "full"
        severity: Severity = "warning" if whole else "error"
        message = f"modules belong to selective recompute, {'whole layers are' if whole else 'nothing is'} recomputed"
        selective = {_GRANULARITY: "selective", _METHOD: None, _NUMBER: None}
        yield found(
            finding(severity, "recompute-modules", message, recipe, _MODULES, _GRANULARITY),
            [{_MODULES: None}],
            [selective],
        )


def recomputed_bias(recipe: Recipe) -> Iterator[Found]:
    """The feed-forward part cannot be recomputed where its output has a bias.

    Core returns that weight out of the recomputed part, which makes it a result of the recomputation: the backward pass
    then recomputes without end.
    """
    language, modules = recipe.model.language, recipe.model.recompute_modules or []
    is_on = recipe.model.recompute_granularity == "selective" and "mlp" in modules
    if is_on and language_family(language).core.get("add_bias_linear"):
        message = f"the feed-forward part of family={language.family} has biases, with which Core cannot recompute it"
        full = {_GRANULARITY: "full", _METHOD: "uniform", _NUMBER: 1, _MODULES: None}
        others = [module for module in modules if module != "mlp"]
        yield found(
            error("recompute-bias", message, recipe, _MODULES, "model.language.family"),
            [full],
            [{_MODULES: others}] if others else [{_GRANULARITY: None, _MODULES: None}],
        )


def recomputed_norms(recipe: Recipe) -> Iterator[Found]:
    """Norms can be recomputed only in layers whose norms are separate modules."""
    modules = recipe.model.recompute_modules or []
    if recipe.model.recompute_granularity != "selective" or "layernorm" not in modules:
        return
    others = [module for module in modules if module != "layernorm"]
    ways = ([{_MODULES: others or ["mlp"]}], [{_GRANULARITY: None, _MODULES: None}])
    precision = recipe.precision
    if precision.fp8 is not None and precision.fp8_recipe == "delayed":
        message = "FP8 with delayed scaling cannot recompute norms"
        paths = (_MODULES, "precision.fp8", "precision.fp8_recipe")
        yield found(error("recompute-norms-fp8", message, recipe, *paths), *ways)
    elif recipe.trainer.accelerator == "cpu":
        message = "recomputing norms needs a GPU with Transformer Engine"
        yield found(error("recompute-norms-cpu", message, recipe, _MODULES, "trainer.accelerator"), *ways)
    else:
        message = "Transformer Engine's layers have their norms inside the products, so this recomputes none of them"
        yield found(warning("recompute-norms", message, recipe, _MODULES), *ways)


def recomputed_attention(recipe: Recipe) -> Iterator[Found]:
    """Fused attention keeps hardly any activations, so recomputing it saves nothing."""
    model = recipe.model
    if model.recompute_granularity == "selective" and (model.recompute_modules or ["core_attn"]) == ["core_attn"]:
        message = "fused attention keeps no matrix of scores: recomputing it costs time and saves next to nothing"
        yield found(
            warning("recompute-attention", message, recipe, _GRANULARITY, _MODULES),
            [{_MODULES: ["mlp"]}],
            [{_GRANULARITY: None, _MODULES: None}],
        )


recompute_rules: tuple[Rule, ...] = (
    full_recompute,
    recomputed_layers,
    selective_recompute,
    recomputed_bias,
    recomputed_norms,
    recomputed_attention,
)
