"""Rules on adapters: that the layers they name exist, and that the layout can divide them."""

from collections.abc import Iterable, Iterator, Sequence

from neva_recipes.config import LoraConfig, Recipe, near_words
from neva_recipes.families import (
    AdapterSite,
    Layout,
    adapter_sites,
    adapters_of,
    language_sites,
    layers_run,
    unknown_targets,
    vision_sites,
)
from neva_recipes.plan.checks._rules import Found, Rule, found
from neva_recipes.plan.findings import error, warning

__all__ = ["adapter_rules"]

_FP8 = "precision.fp8"
_TENSOR = "parallel.tensor_model_parallel_size"


def _adapted(recipe: Recipe) -> Iterator[tuple[str, LoraConfig, tuple[AdapterSite, ...], int]]:
    """Yield the parts with adapters: the name, the settings, the linear layers of a layer, the number of layers."""
    language, vision = recipe.model.language, recipe.model.vision
    if language.lora is not None:
        yield "language", language.lora, language_sites(language), language.num_layers
    if vision is not None and vision.lora is not None:
        yield "vision", vision.lora, vision_sites(vision), layers_run(vision)


def adapter_targets(recipe: Recipe) -> Iterator[Found]:
    """The model has the linear layers that get adapters."""
    for part, lora, sites, _ in _adapted(recipe):
        path = f"model.{part}.lora.target_modules"
        if lora.target_modules == []:
            message = "names no linear layer: nothing gets an adapter"
            yield found(error("adapter-targets", message, recipe, path), [{path: None}])
        elif unknown := unknown_targets(lora, sites):
            names = ", ".join(site.module.rpartition(".")[2] for site in sites)
            message = f"there is no linear layer {unknown[0]} in a layer, but {names}"
            meant = _meant_targets(lora.target_modules or (), unknown, sites)
            yield found(error("adapter-targets", message, recipe, path), [{path: meant or None}])


def _meant_targets(targets: Sequence[str], unknown: Sequence[str], sites: Iterable[AdapterSite]) -> list[str]:
    """Return names of linear layers, each unknown one replaced by the nearest, or left out if none is near."""
    modules = [site.module for site in sites]
    known = {False: [module.rpartition(".")[2] for module in modules], True: modules}
    near = {target: near_words(target, known["." in target], most=1) for target in unknown}
    return list(dict.fromkeys(name for target in targets for name in near.get(target, [target])))


def adapter_rank(recipe: Recipe) -> Iterator[Found]:
    """The matrices of adapters are narrower than a layer that they stand beside."""
    for part, lora, sites, _ in _adapted(recipe):
        path = f"model.{part}.lora.rank"
        side = max((min(sum(site.rows), site.columns) for site in adapter_sites(lora, sites)), default=lora.rank)
        if lora.rank > side:
            message = (
                f"no layer has a smaller side above {side}, the highest rank that its weight can have: what is beyond "
                "costs memory and adds nothing"
            )
            smaller = ({path: rank} for rank in (LoraConfig().rank, 64, 8, 1) if rank < side)
            yield found(warning("adapter-rank", message, recipe, path), smaller)


def adapter_layers(recipe: Recipe) -> Iterator[Found]:
    """The model has the layers that get adapters."""
    for part, lora, _, number in _adapted(recipe):
        path = f"model.{part}.lora.layers"
        last = max((int(text) for text in (lora.layers or "0").replace("-", ",").split(",")), default=0)
        if turned := lora.turned_range:
            message = f"the range {turned} ends before it begins: it names no layer"
            yield found(error("adapter-layers", message, recipe, path), [{path: None}])
        elif not any(map(lora.covers, range(number))):
            message = f"none of the {number} layers that run, 0 to {number - 1}, is among them: nothing gets an adapter"
            yield found(error("adapter-layers", message, recipe, path), [{path: None}])
        elif last >= number:
            message = f"{number} layers run, 0 to {number - 1}"
            yield found(error("adapter-layers", message, recipe, path), [{path: None}])


def adapter_groups(recipe: Recipe) -> Iterator[Found]:
    """Every tensor-parallel rank has whole groups of queries, whose keys and values are adapted or quantized alone."""
    language, tensor = recipe.model.language, recipe.parallel.tensor_model_parallel_size
    grouped = any(site.layout is Layout.GROUPS for _, site in adapters_of(recipe.model, "language"))
    if (grouped or language.quantize is not None) and language.num_query_groups % tensor:
        message = (
            "adapters beside query, key and value, and weights in 4 bits, need whole groups on each rank: "
            f"{language.num_query_groups} groups are not a multiple of {tensor}"
        )
        ways = ({_TENSOR: size} for size in range(tensor - 1, 0, -1) if language.num_query_groups % size == 0)
        yield found(error("adapter-groups", message, recipe, "model.language.num_query_groups", _TENSOR), ways)


def adapter_dropout(recipe: Recipe) -> Iterator[Found]:
    """Dropout keeps some values."""
    for part, lora, _, _ in _adapted(recipe):
        path = f"model.{part}.lora.dropout"
        if lora.dropout == 1.0:
            message = "a probability of 1 drops everything: the adapters learn nothing"
            yield found(error("dropout", message, recipe, path), [{path: 0.05}], [{path: 0.0}])


def adapter_vocabulary(recipe: Recipe) -> Iterator[Found]:
    """Tokens around images are trained with the embeddings, which adapters leave as they are."""
    if recipe.model.use_im_start_end and recipe.model.language.lora is not None:
        path = "model.use_im_start_end"
        message = "the embeddings of the tokens around images stay as they begin, for adapters stand beside layers only"
        yield found(warning("adapter-vocabulary", message, recipe, path), [{path: False}])


def quantized_weights(recipe: Recipe) -> Iterator[Found]:
    """Weights in 4 bits are fixed, in blocks of one row, and not in FP8 too."""
    language = recipe.model.language
    if language.quantize is None:
        return
    path = "model.language.quantize"
    if language.trains_weights:
        message = "weights in 4 bits cannot be trained, only adapters beside them"
        ways = [{"model.language.lora.kind": "lora"}], [{path: None}]
        yield found(error("quantize-trained", message, recipe, path, "model.language.freeze"), *ways)
    if recipe.precision.fp8 is not None:
        message = "weights are in 4 bits or in FP8"
        yield found(error("quantize-fp8", message, recipe, path, _FP8), [{_FP8: None}], [{path: None}])


adapter_rules: tuple[Rule, ...] = (
    adapter_targets,
    adapter_rank,
    adapter_layers,
    adapter_groups,
    adapter_dropout,
    adapter_vocabulary,
    quantized_weights,
)
"""All rules of this file."""
