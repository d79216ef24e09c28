"""The modules of a transformer layer, with and without Transformer Engine."""

import functools
import importlib.util

import torch
from megatron.core.models.gpt.gpt_layer_specs import (
    get_gpt_layer_local_spec,
    get_gpt_layer_with_transformer_engine_spec,
)
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig

from neva_model.model.attention import SdpaCoreAttention
from neva_recipes.config import LanguageConfig

__all__ = ["LayerNorm", "RMSNorm", "block_spec", "has_transformer_engine"]


_NORM_NAMES = {
    "input_layernorm.": "self_attention.linear_qkv.layer_norm_",
    "pre_mlp_layernorm.": "mlp.linear_fc1.layer_norm_",
}
"""Norms of a layer, and what their names begin with where they are fused with the linear layer behind them."""


@functools.cache
def has_transformer_engine() -> bool:
    """Return whether Transformer Engine is installed and there is a GPU to run it on."""
    return torch.cuda.is_available() and importlib.util.find_spec("transformer_engine") is not None


def _with_norms_apart(layer: ModuleSpec, *, own_linear: bool) -> ModuleSpec:
    """Return the spec of Transformer Engine's layer with norms of their own, whose outputs adapters can see.

    Checkpoints keep the names that fused norms have.

    Args:
        layer: The spec.
        own_linear: Whether the linear layers are Core's own and not those of Transformer Engine.
    """
    from megatron.core.extensions.transformer_engine import TEColumnParallelLinear, TENorm

    parts = layer.submodules
    parts.input_layernorm = parts.pre_mlp_layernorm = TENorm
    attention, mlp = parts.self_attention.submodules, parts.mlp.submodules
    attention.linear_qkv = mlp.linear_fc1 = ColumnParallelLinear if own_linear else TEColumnParallelLinear
    if own_linear:
        attention.linear_proj = mlp.linear_fc2 = RowParallelLinear
    parts.sharded_state_dict_keys_map = dict(_NORM_NAMES)
    return layer


class RMSNorm(torch.nn.RMSNorm):
    """RMSNorm for layers without Transformer Engine, usable with sequence parallelism.

    Under sequence parallelism a rank's weight sees only that rank's positions. Core sums the gradients of parameters
    marked `sequence_parallel` over the tensor-parallel ranks; Core's own wrapper of this norm does not support it.
    """

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: object) -> None:
        """Make a norm over `hidden_size`; Core passes further arguments, which RMSNorm does not need."""
        super().__init__(hidden_size, eps=eps)
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]


class LayerNorm(torch.nn.LayerNorm):
    """LayerNorm for layers without Transformer Engine, usable with sequence parallelism as `RMSNorm` is."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: object) -> None:
        """Make a norm over `hidden_size`; Core passes further arguments, which LayerNorm does not need."""
        super().__init__(hidden_size, eps=eps)
        for parameter in self.parameters():
            parameter.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]


_NORMS: dict[str, type[torch.nn.Module]] = {"RMSNorm": RMSNorm, "LayerNorm": LayerNorm}


def block_spec(
    config: TransformerConfig, virtual_stage: int | None, language: LanguageConfig | None = None
) -> TransformerBlockSubmodules | ModuleSpec:
    """Return the spec of the final norm and the layers of this pipeline stage, or of one of its virtual stages.

    Args:
        config: The configuration.
        virtual_stage: Number of the virtual stage on this rank; `None` without virtual stages.
        language: The language model of the recipe; adapters need the inputs of linear layers, and weights in 4 bits
            are only for layers of Core's own. `None` for a model without either.
    """
    if has_transformer_engine():
        layer = get_gpt_layer_with_transformer_engine_spec(qk_layernorm=config.qk_layernorm)
        if language is None or (language.lora is None and language.quantize is None):
            return layer
        return _with_norms_apart(layer, own_linear=language.quantize is not None)
    norm = _NORMS[config.normalization]
    layer = get_gpt_layer_local_spec(normalization=config.normalization, qk_layernorm=config.qk_layernorm)
    layer.submodules.input_layernorm = norm
    layer.submodules.pre_mlp_layernorm = norm
    attention = layer.submodules.self_attention.submodules
    attention.core_attention = SdpaCoreAttention
    if config.qk_layernorm:
        attention.q_layernorm = attention.k_layernorm = norm
    layers = get_num_layers_to_build(config, vp_stage=virtual_stage)
    return TransformerBlockSubmodules(layer_specs=[layer] * layers, layer_norm=norm)
