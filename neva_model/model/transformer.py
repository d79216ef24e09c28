"""A recipe's language model as a configuration for Megatron-Core."""

from typing import Any

import torch
from megatron.core.transformer.transformer_config import TransformerConfig

from neva_model.model.layers import has_transformer_engine
from neva_model.model.rotary import set_attention_factor
from neva_recipes.config import LanguageConfig, ModelConfig, ParallelConfig, Recipe, RecipeError
from neva_recipes.families import language_family

__all__ = ["model_parallel_sizes", "transformer_config"]


def transformer_config(recipe: Recipe) -> TransformerConfig:
    """Return the language model's configuration.

    Args:
        recipe: The recipe; its layout must be the one that the process groups were made for.

    Raises:
        RecipeError: The recipe needs Transformer Engine and a GPU, and they are missing.
    """
    language, parallel = recipe.model.language, recipe.parallel
    dtype = torch.bfloat16 if recipe.precision.precision == "bf16" else torch.float32
    config = TransformerConfig(
        num_layers=language.num_layers,
        hidden_size=language.hidden_size,
        ffn_hidden_size=language.ffn_hidden_size,
        num_attention_heads=language.num_attention_heads,
        num_query_groups=language.num_query_groups,
        kv_channels=language.head_size,
        layernorm_epsilon=language.layernorm_epsilon,
        # Core counts the tokens before and behind a token, besides itself.
        window_size=None if language.sliding_window is None else (language.sliding_window - 1, 0),
        hidden_dropout=language.hidden_dropout,
        attention_dropout=language.attention_dropout,
        bf16=dtype == torch.bfloat16,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        autocast_dtype=dtype,
        **_layout(parallel),
        # Core refuses variable lengths with its default dispatcher, though there are no experts.
        moe_token_dispatcher_type="alltoall",
        # The loss is the mean over the supervised tokens of the whole global batch.
        calculate_per_token_loss=True,
        # `initialization` draws the initial weights. Core must still believe that it initialises: otherwise it omits
        # the marks on parameters that are cut, and the gradient norm is wrong.
        init_method=_leave,
        output_layer_init_method=_leave,
        embedding_init_method=_leave,
        use_cpu_initialization=not torch.cuda.is_available(),
        **_layer(language),
        **_recompute(recipe.model),
        **_kernels(dtype),
        **_fp8(recipe),
    )
    set_attention_factor(config, language)
    return config


def model_parallel_sizes(parallel: ParallelConfig) -> dict[str, int | None]:
    """Return the sizes on which Megatron's process groups and its configuration must agree, under Core's names.

    Core would take one virtual stage for interleaving, and its schedule would fail, so it gets `None` instead.
    """
    virtual = parallel.virtual_pipeline_model_parallel_size
    return {
        "tensor_model_parallel_size": parallel.tensor_model_parallel_size,
        "pipeline_model_parallel_size": parallel.pipeline_model_parallel_size,
        "virtual_pipeline_model_parallel_size": None if virtual == 1 else virtual,
        "context_parallel_size": parallel.context_parallel_size,
    }


def _layer(language: LanguageConfig) -> dict[str, Any]:
    """Return what the family says of a layer."""
    core = language_family(language).core
    named = core["activation_func"]
    return {
        **core,
        "activation_func": _ACTIVATIONS.get(named) or getattr(torch.nn.functional, named),
        # Core has fused kernels for the activations of torch's own names only.
        "bias_activation_fusion": has_transformer_engine() and named not in _ACTIVATIONS,
    }


def _gelu_tanh(values: torch.Tensor) -> torch.Tensor:
    """Return GELU by its tanh approximation (Hendrycks and Gimpel, arXiv 1606.08415; transformers: `gelu_new`)."""
    return torch.nn.functional.gelu(values, approximate="tanh")


_ACTIVATIONS = {"gelu_tanh": _gelu_tanh}


def _layout(parallel: ParallelConfig) -> dict[str, Any]:
    is_interleaved = (parallel.virtual_pipeline_model_parallel_size or 1) > 1
    return {
        "sequence_parallel": parallel.sequence_parallel,
        **model_parallel_sizes(parallel),
        "num_layers_in_first_pipeline_stage": parallel.num_layers_in_first_pipeline_stage,
        "num_layers_in_last_pipeline_stage": parallel.num_layers_in_last_pipeline_stage,
        "cp_comm_type": parallel.cp_comm_type,
        # Micro batches are as long as their longest row, so pipeline stages must tell each other their shapes.
        "variable_seq_lengths": parallel.pipeline_model_parallel_size > 1,
        # Batched, the tensors that two stages send each other forwards and backwards would be mixed up (Megatron-LM).
        "overlap_p2p_comm": is_interleaved,
        "batch_p2p_comm": not is_interleaved,
    }


def _leave(weight: torch.Tensor) -> None:
    pass


def _recompute(model: ModelConfig) -> dict[str, Any]:
    if model.recompute_modules and "layernorm" in model.recompute_modules and not has_transformer_engine():
        raise RecipeError(
            "model.recompute_modules: layernorm needs a GPU with Transformer Engine; use core_attn or mlp here"
        )
    return {
        "recompute_granularity": model.recompute_granularity,
        "recompute_method": model.recompute_method,
        "recompute_num_layers": model.recompute_num_layers,
        "recompute_modules": list(model.recompute_modules) if model.recompute_modules else None,
    }


def _kernels(dtype: torch.dtype) -> dict[str, Any]:
    fused = has_transformer_engine()
    return {
        "apply_rope_fusion": fused,
        "bias_dropout_fusion": fused,
        "masked_softmax_fusion": fused,
        "persist_layer_norm": fused,
        # Core's fused cross entropy always returns its gradient in bf16.
        "cross_entropy_loss_fusion": fused and dtype == torch.bfloat16,
        # Needs an extension that is only built with Apex.
        "gradient_accumulation_fusion": False,
    }


def _fp8(recipe: Recipe) -> dict[str, Any]:
    precision = recipe.precision
    if precision.fp8 is None:
        return {}
    if not has_transformer_engine():
        raise RecipeError(
            f"precision.fp8={precision.fp8} needs a GPU with Transformer Engine, which is not here: set it to none"
        )
    return {
        "fp8": precision.fp8,
        "fp8_recipe": precision.fp8_recipe,
        "fp8_amax_history_len": precision.fp8_amax_history_len,
        "fp8_amax_compute_algo": precision.fp8_amax_compute_algo,
        "fp8_margin": precision.fp8_margin,
        "fp8_param": precision.fp8_param,
        "first_last_layers_bf16": precision.first_last_layers_bf16,
        "num_layers_at_start_in_bf16": precision.num_layers_at_start_in_bf16,
        "num_layers_at_end_in_bf16": precision.num_layers_at_end_in_bf16,
    }
