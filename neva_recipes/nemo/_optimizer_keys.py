"""The `model.optim` section."""

from typing import Any

from neva_recipes.nemo.rules import (
    Configuration,
    Decision,
    Outcome,
    Rule,
    Unusable,
    cannot,
    carried,
    carries,
    decides,
    harmless,
    holds,
    integer,
    number,
    one_of,
    same,
)

__all__ = ["OPTIMIZER_RULES"]

_SCHEDULE = "model.optim.sched"
_ADAMW = ("fused_adam", "adamw", "distributed_fused_adam", "mcore_distributed_optim", "megatron_fused_adam")
_SHARDED = ("distributed_fused_adam", "mcore_distributed_optim")


def _optimizer(value: object, nemo: Configuration) -> Outcome:
    if value in _ADAMW or (value == "adam" and not nemo.get("model.optim.weight_decay", 0)):
        return same("AdamW")
    return cannot("the optimizer is AdamW")


def _learning_rate(value: object, _: Configuration) -> Outcome:
    if value is None:
        return cannot("no learning rate: set optim.lr; 0.001 is in the recipe")
    return carried({"optim.lr": number(value)})


def _betas(value: object, _: Configuration) -> Outcome:
    if not isinstance(value, list) or len(value) != 2:
        raise Unusable("expected two numbers")
    return carried({"optim.adam_beta1": number(value[0]), "optim.adam_beta2": number(value[1])})


def _schedule(value: Any, nemo: Configuration) -> Outcome:
    styles = {"CosineAnnealing": "cosine", "WarmupAnnealing": "linear", None: "constant"}
    style = one_of(value, styles)
    if style is None:
        return cannot("schedules are CosineAnnealing and WarmupAnnealing; a cosine is in the recipe")
    return carried({"optim.lr_decay_style": style})


def _warmup_steps(value: object, nemo: Configuration) -> Outcome:
    ratio = nemo.get(f"{_SCHEDULE}.warmup_ratio")
    if value is None and ratio is not None:
        return same("warmup_ratio says it")
    return carried({"optim.warmup_steps": 0 if value is None else integer(value), "optim.warmup_ratio": None})


def _warmup_ratio(value: object, nemo: Configuration) -> Outcome:
    if value is None or nemo.get(f"{_SCHEDULE}.warmup_steps") is not None:
        return same("warmup_steps says it")
    return carried({"optim.warmup_ratio": number(value)})


def _constant(value: object, _: Configuration) -> Outcome:
    if value is None or number(value) == 0:
        return same("the schedule falls to the last step")
    return cannot("the schedule falls to the last step; there is no time at min_lr")


def _schedule_steps(value: object, nemo: Configuration) -> Outcome:
    if value is None or value == nemo.get("trainer.max_steps"):
        return same("trainer.max_steps says it")
    return carried({"optim.lr_decay_steps": integer(value)})


def _overlap(path: str) -> Decision:
    def decide(value: object, nemo: Configuration) -> Outcome:
        is_sharded = nemo.get("model.optim.name", "fused_adam") in _SHARDED
        return carried({path: True}) if value is True and is_sharded else same("off")

    return decide


OPTIMIZER_RULES: tuple[Rule, ...] = (
    decides(
        "model.optim.name",
        "always AdamW",
        "fused_adam, adamw, the distributed ones, and adam without weight decay; its state is sharded over replicas",
        _optimizer,
    ),
    decides("model.optim.lr", "`optim.lr`", "", _learning_rate, absent=None),
    carries("model.optim.weight_decay", "optim.weight_decay", number),
    decides("model.optim.betas", "`optim.adam_beta1`, `optim.adam_beta2`", "", _betas),
    carries("model.optim.eps", "optim.adam_eps", number),
    holds("model.optim.adam_w_mode", True, otherwise="weight decay is decoupled (AdamW)"),
    holds("model.optim.amsgrad", False, otherwise="the optimizer is AdamW"),
    holds("model.do_layer_norm_weight_decay", False, otherwise="weight decay leaves out biases and norms"),
    decides(
        f"{_SCHEDULE}.name",
        "`optim.lr_decay_style`",
        "CosineAnnealing is cosine, WarmupAnnealing linear, none constant",
        _schedule,
        absent=None,
    ),
    decides(
        f"{_SCHEDULE}.warmup_steps",
        "`optim.warmup_steps`",
        "NeMo starts at 1 / (steps + 1) of the peak, not at zero",
        _warmup_steps,
        absent=None,
    ),
    decides(f"{_SCHEDULE}.warmup_ratio", "`optim.warmup_ratio`", "where warmup_steps is not set", _warmup_ratio),
    decides(f"{_SCHEDULE}.constant_steps", "always `0`", "the schedule falls to the last step", _constant),
    decides(f"{_SCHEDULE}.constant_ratio", "always `0`", "the schedule falls to the last step", _constant),
    carries(f"{_SCHEDULE}.min_lr", "optim.min_lr", number),
    decides(f"{_SCHEDULE}.max_steps", "`optim.lr_decay_steps`", "where it is not `trainer.max_steps`", _schedule_steps),
    decides(
        "model.optim.overlap_grad_sync",
        "`parallel.overlap_grad_reduce`",
        "with a distributed optimizer",
        _overlap("parallel.overlap_grad_reduce"),
    ),
    decides(
        "model.optim.overlap_param_sync",
        "`parallel.overlap_param_gather`",
        "with a distributed optimizer",
        _overlap("parallel.overlap_param_gather"),
    ),
    *(
        harmless(f"model.optim.{key}", "how gradients travel; Megatron-Core's own way is used")
        for key in (
            "average_in_collective",
            "bucket_cap_mb",
            "contiguous_grad_buffer",
            "contiguous_param_buffer",
            "ddp_bucket_size",
            "grad_sync_dtype",
            "param_sync_dtype",
        )
    ),
)
"""Rules for the optimizer's keys."""
