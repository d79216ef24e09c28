"""Keys of the `model` section on batches, layout, recomputation and number formats."""

from collections.abc import Callable

from neva_recipes.config import PlainTable
from neva_recipes.nemo.rules import (
    Configuration,
    Decision,
    Outcome,
    Rule,
    Unusable,
    boolean,
    carried,
    carries,
    decides,
    harmless,
    holds,
    integer,
    leaves,
    left,
    same,
    text,
)

__all__ = ["PARALLEL_RULES"]

_RECOMPUTE = "model.activations_checkpoint"


def _virtual(value: object, _: Configuration) -> Outcome:
    if value is None or integer(value) == 1:
        return same("one piece a stage")
    return carried({"parallel.virtual_pipeline_model_parallel_size": integer(value)})


def _sequence(value: object, nemo: Configuration) -> Outcome:
    if boolean(value) and nemo.get("model.tensor_model_parallel_size", 1) == 1:
        return carried({"parallel.sequence_parallel": False}, "NeMo turns it off without tensor parallelism")
    return carried({"parallel.sequence_parallel": boolean(value)})


def _granularity(value: object, nemo: Configuration) -> Outcome:
    if value is None:
        return same("nothing is recomputed")
    fields: PlainTable = {"model.recompute_granularity": value}
    if value == "selective":
        fields["model.recompute_modules"] = ["core_attn"]
    if value == "full":
        fields["model.recompute_method"] = nemo.get(f"{_RECOMPUTE}_method") or "uniform"
        fields["model.recompute_num_layers"] = nemo.get(f"{_RECOMPUTE}_num_layers") or 1
    return carried(fields)


def _of_full(path: str, convert: Callable[[object], object]) -> Decision:
    def decide(value: object, nemo: Configuration) -> Outcome:
        if not value or nemo.get(f"{_RECOMPUTE}_granularity") != "full":
            return same("with full recomputation only")
        return carried({path: convert(value)})

    return decide


def _fp8_format(nemo: Configuration) -> str | None:
    if not nemo.says("model.fp8"):
        return None
    return "e4m3" if nemo.says("model.fp8_e4m3") else "hybrid" if nemo.says("model.fp8_hybrid") else None


def _fp8(value: object, nemo: Configuration) -> Outcome:
    if not value:
        return same("FP8 is off")
    if _fp8_format(nemo) is None:
        return left("neither fp8_e4m3 nor fp8_hybrid is on, so FP8 is off")
    return carried({"precision.fp8": _fp8_format(nemo)})


def _fp8_part(path: str, convert: Callable[[object], object]) -> Decision:
    def decide(value: object, nemo: Configuration) -> Outcome:
        if _fp8_format(nemo) is None:
            return same("FP8 is off")
        if value is None:
            raise Unusable("expected a value")
        return carried({path: convert(value)})

    return decide


def _fp8_switch(value: object, nemo: Configuration) -> Outcome:
    return same("FP8 is off") if _fp8_format(nemo) is None else carried({"precision.fp8": _fp8_format(nemo)})


def _without_fp8(otherwise: str, value_here: object) -> Decision:
    def decide(value: object, nemo: Configuration) -> Outcome:
        return same() if _fp8_format(nemo) is None or value == value_here else left(otherwise)

    return decide


_KERNELS = "a choice of kernels"
_GRADIENTS = "how gradients travel; Megatron-Core's own way is used"
_FP16 = "for fp16 only"

PARALLEL_RULES: tuple[Rule, ...] = (
    carries("model.micro_batch_size", "data.micro_batch_size", integer, required=True),
    carries("model.global_batch_size", "data.global_batch_size", integer, required=True),
    holds("model.rampup_batch_size", None, otherwise="the global batch has one size from the first step on"),
    carries("model.tensor_model_parallel_size", "parallel.tensor_model_parallel_size", integer),
    carries("model.pipeline_model_parallel_size", "parallel.pipeline_model_parallel_size", integer),
    decides(
        "model.virtual_pipeline_model_parallel_size",
        "`parallel.virtual_pipeline_model_parallel_size`",
        "1 is none",
        _virtual,
    ),
    carries("model.context_parallel_size", "parallel.context_parallel_size", integer),
    holds("model.expert_model_parallel_size", 1, otherwise="there are no mixtures of experts"),
    holds("model.num_moe_experts", None, otherwise="there are no mixtures of experts"),
    harmless("model.moe_*", "there are no mixtures of experts"),
    holds("model.pipeline_model_parallel_split_rank", 0, otherwise="there is no encoder beside the decoder"),
    leaves("model.use_tp_pp_dp_mapping", False, otherwise="ranks are ordered tensor, context, data, pipeline"),
    decides(
        "model.sequence_parallel",
        "`parallel.sequence_parallel`",
        "False without tensor parallelism",
        _sequence,
    ),
    leaves("model.fsdp", False, otherwise="weights are not sharded over replicas; the optimizer is"),
    harmless("model.fsdp_*", "weights are not sharded over replicas"),
    decides(
        f"{_RECOMPUTE}_granularity",
        "`model.recompute_granularity`",
        "selective recomputes core_attn; full begins as uniform, 1 layer",
        _granularity,
    ),
    decides(f"{_RECOMPUTE}_method", "`model.recompute_method`", "with full", _of_full("model.recompute_method", text)),
    decides(
        f"{_RECOMPUTE}_num_layers",
        "`model.recompute_num_layers`",
        "with full",
        _of_full("model.recompute_num_layers", integer),
    ),
    leaves(
        "model.num_micro_batches_with_partial_activation_checkpoints",
        otherwise="all microbatches are recomputed alike; memory only",
    ),
    leaves(f"{_RECOMPUTE}_layers_per_pipeline", otherwise="all stages recompute alike; memory only"),
    leaves("model.megatron_amp_O2", True, otherwise="bf16 weights with fp32 master weights, as with True; no autocast"),
    *(harmless(f"model.{key}", _FP16) for key in ("native_amp_init_scale", "native_amp_growth_interval", "hysteresis")),
    holds("model.fp32_residual_connection", False, otherwise="the residual stream has the precision of the model"),
    holds("model.fp16_lm_cross_entropy", False, otherwise="the loss is computed from fp32 logits"),
    decides("model.fp8", "`precision.fp8`", "hybrid or e4m3, by the next two", _fp8),
    decides("model.fp8_e4m3", "`precision.fp8`", "with fp8", _fp8_switch),
    decides("model.fp8_hybrid", "`precision.fp8`", "with fp8", _fp8_switch),
    decides("model.fp8_margin", "`precision.fp8_margin`", "with fp8", _fp8_part("precision.fp8_margin", integer)),
    decides(
        "model.fp8_amax_history_len",
        "`precision.fp8_amax_history_len`",
        "with fp8",
        _fp8_part("precision.fp8_amax_history_len", integer),
    ),
    decides(
        "model.fp8_amax_compute_algo",
        "`precision.fp8_amax_compute_algo`",
        "with fp8",
        _fp8_part("precision.fp8_amax_compute_algo", text),
    ),
    decides("model.fp8_params", "`precision.fp8_param`", "with fp8", _fp8_part("precision.fp8_param", boolean)),
    decides(
        "model.fp8_interval",
        "left out unless `1`",
        "scales are updated at every step",
        _without_fp8("scales are updated at every step", 1),
    ),
    decides(
        "model.reduce_amax",
        "left out unless `True`",
        "the largest values are compared over GPUs",
        _without_fp8("the largest values are compared over GPUs", True),
    ),
    decides(
        "model.fp8_wgrad",
        "left out unless `True`",
        "gradients of weights are computed in FP8 too",
        _without_fp8("gradients of weights are computed in FP8 too", True),
    ),
    *(
        harmless(f"model.{key}", _KERNELS)
        for key in (
            "apply_rope_fusion",
            "batch_p2p_comm",
            "bias_activation_fusion",
            "bias_dropout_add_fusion",
            "bias_dropout_fusion",
            "bias_gelu_fusion",
            "cpu_offloading*",
            "defer_embedding_wgrad_compute",
            "enable_cuda_graph",
            "gc_interval",
            "get_attention_mask_from_fusion",
            "gradient_accumulation_fusion",
            "masked_softmax_fusion",
            "nccl_communicator_config_path",
            "onnx_safe",
            "overlap_p2p_comm",
            "persist_layer_norm",
            "transformer_engine",
            "ub_tp_comm_overlap*",
            "use_cpu_initialization",
            "use_emha",
            "use_flash_attention",
            "use_te_rng_tracker",
        )
    ),
    *(
        harmless(f"model.{key}", _GRADIENTS)
        for key in (
            "async_grad_allreduce",
            "distributed_adam_bucket_merge_size",
            "grad_allreduce_chunk_size_mb",
            "grad_div_ar_fusion",
            "gradient_as_bucket_view",
            "sync_batch_comm",
        )
    ),
    harmless("model.apex_transformer_log_level", "what is logged"),
    leaves("model.nsys_profile.enabled", False, otherwise="profile with trainer.profiler"),
    harmless("model.nsys_profile.*", "with enabled"),
    leaves("model.memory_profile.enabled", False, otherwise="profile with trainer.profiler"),
    harmless("model.memory_profile.*", "with enabled"),
    harmless("model.dist_ckpt_*", "the format of checkpoints is Megatron-Core's"),
    harmless("model.enable_megatron_timers", "what is logged"),
)
"""Rules for the keys on batches, layout, recomputation and number formats."""
