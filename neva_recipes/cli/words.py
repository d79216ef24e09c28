"""Words from other programs, and what people who type them mean here."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from neva_recipes.config import LoraConfig, Recipe, field_types, near_words, node_types
from neva_recipes.run_directory.layout import CHECKPOINTS
from neva_recipes.run_directory.names import short_checkpoint_name, step_of

__all__ = ["COMMAND_WORDS", "FIELD_WORDS", "checkpoint_words", "hint_of", "meant_field"]

COMMAND_WORDS: Mapping[str, tuple[str, ...]] = {
    "train": ("llava.pretrain", "llava.finetune", "gpt.pretrain"),
    "run": ("llava.pretrain", "llava.finetune", "rerun"),
    "sft": ("llava.finetune",),
    "continue": ("resume",),
    "restart": ("resume", "rerun"),
    "ls": ("list", "status"),
    "ps": ("status",),
    "runs": ("status",),
    "recipes": ("list",),
    "info": ("show", "status"),
    "config": ("show",),
    "metrics": ("status", "show", "plot"),
    "loss": ("status", "plot"),
    "tensorboard": ("plot",),
    "tail": ("logs",),
    "stop": ("cancel",),
    "kill": ("cancel",),
    "delete": ("gc",),
    "rm": ("gc",),
    "clean": ("gc",),
    "compare": ("diff",),
    "eval": ("evaluate",),
    "test": ("evaluate",),
    "infer": ("chat", "generate"),
    "complete": ("generate",),
    "check": ("verify",),
    "peft": ("llava.lora", "llava.qlora"),
    "finetune_lora": ("llava.lora",),
    "finetune_qlora": ("llava.qlora",),
    "llava.finetune_lora": ("llava.lora",),
    "llava.finetune_qlora": ("llava.qlora",),
}
"""The commands and recipes that do what each word means elsewhere."""

FIELD_WORDS: Mapping[str, str] = {
    "learning_rate": "optim.lr",
    "batch_size": "data.global_batch_size",
    "train_batch_size": "data.global_batch_size",
    "per_device_train_batch_size": "data.micro_batch_size",
    "epochs": "trainer.max_epochs",
    "num_train_epochs": "trainer.max_epochs",
    "steps": "trainer.max_steps",
    "max_length": "data.sequence_length",
    "model_max_length": "data.sequence_length",
    "max_seq_len": "data.sequence_length",
    "cutoff_len": "data.sequence_length",
    "model_name_or_path": "model.language.from_pretrained",
    "model": "model.language.from_pretrained",
    "vision_tower": "model.vision.from_pretrained",
    "pretrain_mm_mlp_adapter": "model.projector.from_pretrained",
    "data": "data.data_path",
    "dataset": "data.data_path",
    "train_file": "data.data_path",
    "eval_dataset": "data.validation_data_path",
    "eval_file": "data.validation_data_path",
    "val_dataset": "data.validation_data_path",
    "validation_file": "data.validation_data_path",
    "eval_steps": "trainer.val_check_interval",
    "media_dir": "data.image_folder",
    "image_dir": "data.image_folder",
    "freeze_vit": "model.vision.freeze",
    "freeze_llm": "model.language.freeze",
    "freeze_aligner": "model.projector.freeze",
    "version": "data.conv_template",
    "template": "data.conv_template",
    "gradient_checkpointing": "model.recompute_granularity",
    "save_steps": "checkpoint.every_n_train_steps",
    "max_grad_norm": "optim.clip_grad",
    "torch_dtype": "precision.precision",
    "dtype": "precision.precision",
    "lr_scheduler": "optim.lr_decay_style",
    "lr_scheduler_type": "optim.lr_decay_style",
    "gpus": "trainer.devices",
    "num_gpus": "trainer.devices",
    "nnodes": "trainer.num_nodes",
    "nodes": "trainer.num_nodes",
    "report_to": "logging.wandb_project",
    "r": "model.language.lora.rank",
    "lora_r": "model.language.lora.rank",
    "lora_rank": "model.language.lora.rank",
    "lora_alpha": "model.language.lora.alpha",
    "lora_dropout": "model.language.lora.dropout",
    "lora_target": "model.language.lora.target_modules",
    "lora_target_modules": "model.language.lora.target_modules",
    "layers_to_transform": "model.language.lora.layers",
    "mm_projector_lr": "optim.lr_of.projector",
}
"""The field that corresponds to each word of other trainers."""


_RESUME = frozenset({"resume", "resume_from", "resume_from_checkpoint", "resume_from_ckpt", "ckpt_path"})
"""Words of other trainers for resuming a run, which is a command here."""

_PLACES = frozenset({"output_dir", "save_dir", "exp_dir", "default_root_dir", "results_dir", "run_dir", "log_dir"})
"""Words of other trainers for the folder of what a run writes, which is a flag here."""

_ADAPTERS = re.compile(r"(use_|enable_)?lora(_.*)?|(use_)?peft(_.*)?|adapters?")
_FOUR_BITS = re.compile(
    r"(use_)?q_?lora|load_in_[48]bit|bits|(bnb_)?quantization_bit|bnb_4bit_.*|(double_)?quant(_type)?"
)
_KINDS_OF_ADAPTERS = re.compile(r"(?:use_)?(dora|rslora)")
_WITH_ADAPTERS = (
    "; the recipe llava.lora trains adapters, and model.language.lora.rank=VALUE gives them to any other: "
    "docs/adapters.md"
)
_IN_FOUR_BITS = (
    "; model.language.quantize=nf4 keeps fixed weights in 4 bits, as the recipe llava.qlora does: docs/adapters.md"
)

_KINDS = frozenset({"train_type", "tuner_type", "finetuning_type"})
"""Words of other trainers for which weights are trained: all, or adapters."""

_SHARDED = (
    "; there is no DeepSpeed or FSDP: parallel.use_distributed_optimizer shards the optimizer, "
    "and parallel.tensor_model_parallel_size the weights"
)

_REMARKS: Mapping[str, str] = {
    "gradient_accumulation_steps": "; data.global_batch_size counts the samples of a step over all processes, and the "
    "microbatches follow from it: data.micro_batch_size x data-parallel processes x accumulation steps",
    "bf16": " (did you mean precision.precision=bf16?)",
    "fp16": " (did you mean precision.precision=bf16?)",
    "deepspeed": _SHARDED,
    "fsdp": _SHARDED,
    "do_train": "; every recipe trains: leave it out",
    "do_eval": "; a run validates if data.validation_data_path is set",
    "do_predict": " (did you mean nemo-run evaluate?)",
}
"""Ends of messages about words of other trainers to which no value of a field corresponds."""


def hint_of(setting: str, value: str = "") -> str | None:
    """Return the end of a message about a field or flag of other trainers, with its counterpart here; or `None`.

    Args:
        setting: The text typed, such as `--resume`, `lora` or `data.max_length`.
        value: The value for it, if known.
    """
    names = setting.lstrip("-").replace("-", "_").lower().split(".")
    last = names[-1]
    if (hint := _hint_of_adapters(names, value.lower())) is not None:
        return hint
    if last in _KINDS:
        return "; every part of the model trains unless its freeze is true, such as model.vision.freeze"
    if last in _RESUME:
        run = "RUN" if value in ("", "true", "VALUE") else checkpoint_words(value) or shlex.quote(value)
        return f" (did you mean nemo-run resume {run}?)"
    if last in _PLACES:
        return f" (did you mean --runs-dir {'FOLDER' if value in ('', 'VALUE') else shlex.quote(value)}?)"
    return _REMARKS.get(last) or (f" (did you mean {FIELD_WORDS[last]}?)" if last in FIELD_WORDS else None)


def _hint_of_adapters(names: list[str], value: str) -> str | None:
    """Return what `hint_of` says of words for adapters and for weights in 4 bits; `None` for all others."""
    part = "vision" if "vision" in names else "language"
    branch, last = f"model.{part}.lora", names[-1]
    field = FIELD_WORDS.get(last, "")
    if field.startswith("model.language.lora."):
        return f" (did you mean {branch}.{field.rpartition('.')[2]}?)"
    if kind := _KINDS_OF_ADAPTERS.fullmatch(value if last in _KINDS else last):
        return f" (did you mean {branch}.kind={kind[1]}?)"
    if _FOUR_BITS.fullmatch(value if last in _KINDS else last):
        return _IN_FOUR_BITS
    if names[:-1] == branch.split("."):  # there are adapters, and a list of their fields says more
        return None
    if any(map(_ADAPTERS.fullmatch, names[:-1])) and last in field_types(LoraConfig):
        return f" (did you mean {branch}.{last}?)"
    return _WITH_ADAPTERS if any(map(_ADAPTERS.fullmatch, [*names, value if last in _KINDS else ""])) else None


def checkpoint_words(word: str) -> str | None:
    """Return what `nemo-run resume` takes in place of the path of a run's checkpoint; `None` for any other word."""
    path = Path(word)
    if path.name == CHECKPOINTS and "/" in word:
        return shlex.quote(str(path.parent))
    if (step := step_of(path)) is None or path.parent.name != CHECKPOINTS:
        return None
    return shlex.join([str(path.parent.parent), "--from", short_checkpoint_name(step)])


def meant_field(word: str, *, exactly: bool = False) -> str | None:
    """Return the field that a word such as `--learning_rate` or `lr` means; `None` if it resembles none.

    If several fields have the name, the first one is meant.

    Args:
        word: The word typed, with or without dashes.
        exactly: Whether to ignore words that are only similar.
    """
    name = word.lstrip("-").replace("-", "_").lower()
    words = {**dict(_named(Recipe)), **FIELD_WORDS}
    if name in words:
        return words[name]
    near = [] if exactly else near_words(name, words, most=1, least_ratio=0.8)
    return words[near[0]] if near else None


def _named(kind: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield name and path of every field, last first, so that in a mapping the first field of a name wins."""
    types: Iterable[tuple[str, object]] = reversed(field_types(kind).items())
    for name, annotation in types:
        nodes = node_types(annotation)
        for node in reversed(nodes):
            yield from _named(node, f"{prefix}{name}.")
        if not nodes and prefix:
            yield name, f"{prefix}{name}"
