"""For every field of a recipe, the effect of a new value on a run that goes on from a checkpoint."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Literal

from neva_recipes.config import Recipe, RopeConfig

__all__ = ["EFFECTIVE", "REFUSED", "UNUSED", "Effect", "effect_of"]


@dataclass(frozen=True)
class Effect:
    """The effect of a changed field.

    Attributes:
        kind: `effective` from the next step on, `refused`, or `without effect`.
        why: The reason; empty if the field is effective.
    """

    kind: Literal["effective", "refused", "without effect"]
    why: str = ""


_SHAPE = "the weights of the checkpoint are of that shape"
_MEANING = "the weights of the checkpoint were trained with it"
_TRAINED = "the optimizer's state is that of the weights that were trained"
_GROUPED = "the optimizer's state is that of groups of weights with one learning rate each"
_FORMAT = "the optimizer's state is kept in that form"
_DRAWN = "weights that stay as they are and that no file holds are drawn with it"

_ADAPTER_FIELDS = ("kind", "rank", "alpha", "target_modules", "layers")
"""Fields of adapters that decide which there are and what they compute."""

REFUSED: Mapping[str, str] = {
    "model.language.num_layers": _SHAPE,
    "model.language.hidden_size": _SHAPE,
    "model.language.ffn_hidden_size": _SHAPE,
    "model.language.num_attention_heads": _SHAPE,
    "model.language.num_query_groups": _SHAPE,
    "model.language.kv_channels": _SHAPE,
    "model.language.vocab_size": _SHAPE,
    "model.language.max_position_embeddings": _MEANING,
    "model.language.rotary_base": _MEANING,
    "model.language.rope_scaling_factor": _MEANING,
    "model.language.rope": _MEANING,
    **{f"model.language.rope.{field.name}": _MEANING for field in fields(RopeConfig)},
    "model.language.layernorm_epsilon": _MEANING,
    "model.language.sliding_window": _MEANING,
    "model.language.share_embeddings_and_output_weights": _SHAPE,
    "model.language.freeze": _TRAINED,
    "model.language.quantize": _MEANING,
    "model.language.lora": _TRAINED,
    **{f"model.language.lora.{name}": _TRAINED for name in _ADAPTER_FIELDS},
    "model.vision": _SHAPE,
    "model.language.family": _SHAPE,
    "model.vision.vision_model_type": _SHAPE,
    "model.vision.num_layers": _SHAPE,
    "model.vision.hidden_size": _SHAPE,
    "model.vision.ffn_hidden_size": _SHAPE,
    "model.vision.num_attention_heads": _SHAPE,
    "model.vision.image_size": _SHAPE,
    "model.vision.position_image_size": _SHAPE,
    "model.vision.patch_size": _SHAPE,
    "model.vision.hidden_act": _MEANING,
    "model.vision.layernorm_epsilon": _MEANING,
    "model.vision.vision_select_layer": _MEANING,
    "model.vision.vision_select_feature": _MEANING,
    "model.vision.freeze": _TRAINED,
    "model.vision.lora": _TRAINED,
    **{f"model.vision.lora.{name}": _TRAINED for name in _ADAPTER_FIELDS},
    "model.projector": _SHAPE,
    "model.projector.mm_projector_type": _SHAPE,
    "model.projector.freeze": _TRAINED,
    "model.use_im_start_end": _MEANING,
    "optim.lr_of": _GROUPED,
    "data.class": _MEANING,
    "parallel.use_distributed_optimizer": _FORMAT,
    "precision.precision": _FORMAT,
}
"""Fields that a run cannot change, with the reason; `data.class` stands for the kind of the data."""

_FROM_CHECKPOINT = "the weights come from the checkpoint"
_NO_FP8 = "precision.fp8 is none"
_NOT_DELAYED = "it belongs to delayed FP8 scaling"
_NO_VALIDATION = "there is no data.validation_data_path"
_NOT_FULL = "model.recompute_granularity is not full"


def _always(recipe: Recipe) -> bool:
    return True


def _without_fp8(recipe: Recipe) -> bool:
    return recipe.precision.fp8 is None


def _not_delayed(recipe: Recipe) -> bool:
    return _without_fp8(recipe) or recipe.precision.fp8_recipe != "delayed"


def _all_layers_fp8(recipe: Recipe) -> bool:
    return _without_fp8(recipe) or not recipe.precision.first_last_layers_bf16


def _no_validation(recipe: Recipe) -> bool:
    return recipe.data.validation_data_path is None


def _not_full(recipe: Recipe) -> bool:
    return recipe.model.recompute_granularity != "full"


def _not_selective(recipe: Recipe) -> bool:
    return recipe.model.recompute_granularity != "selective"


def _is_constant(recipe: Recipe) -> bool:
    return recipe.optim.lr_decay_style == "constant"


def _no_schedule(recipe: Recipe) -> bool:
    return _is_constant(recipe) and recipe.optim.warmup_ratio is None


def _ranks_nothing(recipe: Recipe) -> bool:
    return recipe.checkpoint.save_top_k in (-1, 0) and recipe.trainer.early_stopping_patience is None


UNUSED: Mapping[str, tuple[Callable[[Recipe], bool], str]] = {
    "model.language.init_method_std": (_always, _FROM_CHECKPOINT),
    "model.language.from_pretrained": (_always, _FROM_CHECKPOINT),
    "model.language.lora.from_pretrained": (_always, _FROM_CHECKPOINT),
    "model.vision.lora.from_pretrained": (_always, _FROM_CHECKPOINT),
    "model.vision.image_token_len": (_always, "it follows from the sizes, and is only checked against them"),
    "model.vision.from_pretrained": (_always, _FROM_CHECKPOINT),
    "model.projector.from_pretrained": (_always, _FROM_CHECKPOINT),
    "model.recompute_method": (_not_full, _NOT_FULL),
    "model.recompute_num_layers": (_not_full, _NOT_FULL),
    "model.recompute_modules": (_not_selective, "model.recompute_granularity is not selective"),
    "parallel.cp_comm_type": (lambda recipe: recipe.parallel.context_parallel_size == 1, "no sequence is shared"),
    "precision.grad_reduce_in_fp32": (
        lambda recipe: recipe.precision.precision == "fp32",
        "with precision.precision=fp32 gradients are in fp32 anyway",
    ),
    "precision.fp8_recipe": (_without_fp8, _NO_FP8),
    "precision.fp8_amax_history_len": (_not_delayed, _NOT_DELAYED),
    "precision.fp8_amax_compute_algo": (_not_delayed, _NOT_DELAYED),
    "precision.fp8_margin": (_not_delayed, _NOT_DELAYED),
    "precision.fp8_param": (_without_fp8, _NO_FP8),
    "precision.first_last_layers_bf16": (_without_fp8, _NO_FP8),
    "precision.num_layers_at_start_in_bf16": (_all_layers_fp8, "no layers are kept in bf16"),
    "precision.num_layers_at_end_in_bf16": (_all_layers_fp8, "no layers are kept in bf16"),
    "optim.min_lr": (_is_constant, "the learning rate is constant"),
    "optim.lr_decay_steps": (_no_schedule, "the learning rate is constant"),
    "trainer.val_check_interval": (_no_validation, _NO_VALIDATION),
    "trainer.limit_val_batches": (_no_validation, _NO_VALIDATION),
    "trainer.val_before_training": (lambda recipe: True, "the first step has been trained"),
    "checkpoint.monitor": (_ranks_nothing, "nothing is ranked by it: see checkpoint.save_top_k"),
    "checkpoint.mode": (lambda recipe: recipe.checkpoint.monitor is None, "checkpoint.monitor is none"),
    "logging.wandb_entity": (lambda recipe: recipe.logging.wandb_project is None, "logging.wandb_project is none"),
}
"""Fields that may have no effect: the condition on the recipe, and the reason; otherwise they are effective."""

EFFECTIVE = frozenset(
    {
        "name",
        "model.language.make_vocab_size_divisible_by",
        "model.language.hidden_dropout",
        "model.language.attention_dropout",
        "model.language.lora.dropout",
        "model.vision.lora.dropout",
        "model.recompute_granularity",
        "data.data_path",
        "data.validation_data_path",
        "data.tokenizer",  # with the same vocabulary: `require_resumable` and the worker check it
        "data.sequence_length",
        "data.micro_batch_size",
        "data.global_batch_size",  # grouped batches are counted whole: `require_resumable` checks it
        "data.dataloader_type",
        "data.num_workers",
        "data.image_folder",
        "data.conv_template",
        "data.image_aspect_ratio",
        "data.group_by_modality_length",
        "data.on_bad_sample",
        "data.blend",
        "parallel.tensor_model_parallel_size",
        "parallel.pipeline_model_parallel_size",
        "parallel.virtual_pipeline_model_parallel_size",
        "parallel.num_layers_in_first_pipeline_stage",
        "parallel.num_layers_in_last_pipeline_stage",
        "parallel.context_parallel_size",
        "parallel.sequence_parallel",
        "parallel.overlap_grad_reduce",
        "parallel.overlap_param_gather",
        "precision.fp8",
        "optim.lr",
        "optim.lr_decay_style",
        "optim.warmup_steps",
        "optim.warmup_ratio",
        "optim.weight_decay",
        "optim.adam_beta1",
        "optim.adam_beta2",
        "optim.adam_eps",
        "optim.clip_grad",
        "trainer.accelerator",
        "trainer.num_nodes",
        "trainer.devices",
        "trainer.max_steps",
        "trainer.max_epochs",
        "trainer.log_every_n_steps",
        "trainer.seed",  # the order of the data; random states continue
        "trainer.early_stopping_patience",
        "trainer.ema_decay",  # without averages in the checkpoint, they start from its weights
        "trainer.profiler",
        "trainer.enable_progress_bar",
        "checkpoint.every_n_train_steps",
        "checkpoint.train_time_interval_minutes",
        "checkpoint.save_top_k",
        "checkpoint.save_last",
        "logging.wandb_project",
    }
)
"""Fields whose new value takes effect with the next step."""


_DRAWN_WITH = ("trainer.seed", "model.language.init_method_std")
"""Fields that decide the values of random weights."""


def _draws_again(recipe: Recipe) -> bool:
    """Return whether checkpoints lack random weights of a part, which each start draws as the first one did."""
    model = recipe.model
    parts = [part for part in (model.language, model.vision, model.projector) if part is not None]
    return model.is_saved_in_part and any(not part.trains_weights and part.source is None for part in parts)


def effect_of(path: str, saved: Recipe, recipe: Recipe) -> Effect:
    """Return the effect of a changed field on a run that goes on.

    Args:
        path: Dotted path of the field.
        saved: The recipe of the checkpoint.
        recipe: The recipe with the new value.
    """
    if path in _DRAWN_WITH and _draws_again(saved):
        return Effect("refused", _DRAWN)
    if path in REFUSED:
        return Effect("refused", REFUSED[path])
    if path in UNUSED and UNUSED[path][0](recipe):
        return Effect("without effect", UNUSED[path][1])
    return Effect("effective")
