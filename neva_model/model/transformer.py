"""A recipe's language model as the configuration Megatron-Core takes."""

from typing import Any

import torch
from megatron.core.transformer.transformer_config import TransformerConfig

from neva_model.model.layers import has_transformer_engine
from neva_recipes.config import ModelConfig, ParallelConfig, Recipe, RecipeError

__all__ = ["model_parallel_sizes", "transformer_config"]


def transformer_config(recipe: Recipe) -> TransformerConfig:
    """Return the language model's configuration.

    Args:
        recipe: The recipe; its layout must be the one the process groups were made for.

    Raises:
        RecipeError: The recipe asks for what needs Transformer Engine and a GPU, and they are not here.
    """
    language, parallel = recipe.model.language, recipe.parallel
    is_interleaved = (parallel.virtual_pipeline_model_parallel_size or 1) > 1
    dtype = torch.bfloat16 if recipe.precision.precision == "bf16" else torch.float32
    return TransformerConfig(
        num_layers=language.num_layers,
        hidden_size=language.hidden_size,
        ffn_hidden_size=language.ffn_hidden_size,
        num_attention_heads=language.num_attention_heads,
        num_query_groups=language.num_query_groups,
        kv_channels=language.head_size,
        normalization="RMSNorm",
        layernorm_epsilon=language.layernorm_epsilon,
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        add_bias_linear=False,
        hidden_dropout=language.hidden_dropout,
        attention_dropout=language.attention_dropout,
        bf16=dtype == torch.bfloat16,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        autocast_dtype=dtype,
        sequence_parallel=parallel.sequence_parallel,
        **model_parallel_sizes(parallel),
        num_layers_in_first_pipeline_stage=parallel.num_layers_in_first_pipeline_stage,
        num_layers_in_last_pipeline_stage=parallel.num_layers_in_last_pipeline_stage,
        cp_comm_type=parallel.cp_comm_type,
        # Microbatches are as long as their longest row, so pipeline stages must tell each other their shapes.
        variable_seq_lengths=parallel.pipeline_model_parallel_size > 1,
        # Batched, what two stages send each other forwards and backwards at once is mixed up: as Megatron-LM demands.
        overlap_p2p_comm=is_interleaved,
        batch_p2p_comm=not is_interleaved,
        # Core refuses variable lengths with its default dispatcher, though there are no experts.
        moe_token_dispatcher_type="alltoall",
        # The loss is the mean over the supervised tokens of the whole global batch.
        calculate_per_token_loss=True,
        # Initial weights are drawn by `initialization`. Core must still believe that it initialises: otherwise it
        # leaves out the marks that say which parameters are cut, and the gradient norm comes out wrong.
        init_method=_leave,
        output_layer_init_method=_leave,
        embedding_init_method=_leave,
        use_cpu_initialization=not torch.cuda.is_available(),
        **_recompute(recipe.model),
        **_kernels(dtype),
        **_fp8(recipe),
    )


def model_parallel_sizes(parallel: ParallelConfig) -> dict[str, int | None]:
    """Return the sizes that Megatron's process groups and its configuration must agree on, under Core's names.

    Core takes one virtual stage for interleaving all the same, with a schedule that then fails: it is said to be none.
    """
    virtual = parallel.virtual_pipeline_model_parallel_size
    return {
        "tensor_model_parallel_size": parallel.tensor_model_parallel_size,
        "pipeline_model_parallel_size": parallel.pipeline_model_parallel_size,
        "virtual_pipeline_model_parallel_size": None if virtual == 1 else virtual,
        "context_parallel_size": parallel.context_parallel_size,
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
        "bias_activation_fusion": fused,
        "bias_dropout_fusion": fused,
        "masked_softmax_fusion": fused,
        "persist_layer_norm": fused,
        # Core's fused cross entropy returns its gradient in bf16 whatever the logits are.
        "cross_entropy_loss_fusion": fused and dtype == torch.bfloat16,
        # Needs an extension that is built with Apex only.
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
