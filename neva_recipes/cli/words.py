"""Words from other programs, and what people who type them mean here."""

import re
from collections.abc import Iterable, Iterator, Mapping

from neva_recipes.config import Recipe, field_types, near_words, node_types

__all__ = ["COMMAND_WORDS", "FIELD_WORDS", "hint_of", "meant_field"]

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
    "infer": ("chat",),
    "generate": ("chat",),
    "convert": ("export", "import-nemo"),
    "check": ("verify",),
}
"""The commands and recipes that do what each word means elsewhere."""

FIELD_WORDS: Mapping[str, str] = {
    "learning_rate": "optim.lr",
    "batch_size": "data.global_batch_size",
    "train_batch_size": "data.global_batch_size",
    "gradient_accumulation_steps": "data.global_batch_size",
    "per_device_train_batch_size": "data.micro_batch_size",
    "epochs": "trainer.max_epochs",
    "num_train_epochs": "trainer.max_epochs",
    "steps": "trainer.max_steps",
    "max_length": "data.sequence_length",
    "model_max_length": "data.sequence_length",
    "model_name_or_path": "model.language.from_pretrained",
    "model": "model.language.from_pretrained",
    "vision_tower": "model.vision.from_pretrained",
    "pretrain_mm_mlp_adapter": "model.projector.from_pretrained",
    "data": "data.data_path",
    "dataset": "data.data_path",
    "version": "data.conv_template",
    "template": "data.conv_template",
    "gradient_checkpointing": "model.recompute_granularity",
    "save_steps": "checkpoint.every_n_train_steps",
    "max_grad_norm": "optim.clip_grad",
    "bf16": "precision.precision",
    "fp16": "precision.precision",
    "gpus": "trainer.devices",
    "num_gpus": "trainer.devices",
    "nnodes": "trainer.num_nodes",
    "nodes": "trainer.num_nodes",
    "report_to": "logging.wandb_project",
}
"""The field that corresponds to each word of other trainers."""


_RESUME = frozenset({"resume", "resume_from", "resume_from_checkpoint", "resume_from_ckpt", "ckpt_path"})
"""Words of other trainers for resuming a run, which is a command here."""

_PLACES = frozenset({"output_dir", "save_dir", "exp_dir", "default_root_dir", "results_dir", "run_dir", "log_dir"})
"""Words of other trainers for the folder of what a run writes, which is a flag here."""

_ABSENT = re.compile(r"q?lora(_.*)?|peft(_.*)?|adapters?|load_in_[48]bit")


def hint_of(setting: str, value: str = "") -> str | None:
    """Return the end of a message about a field or flag of other trainers, with its counterpart here; or `None`.

    Args:
        setting: The text typed, such as `--resume`, `lora` or `data.max_length`.
        value: The value for it, if known.
    """
    names = setting.lstrip("-").replace("-", "_").lower().split(".")
    if any(map(_ABSENT.fullmatch, names)):
        return "; there are no adapters such as LoRA, and no 4-bit weights: docs/small_data.md says what to do instead"
    if names[-1] in _RESUME:
        run = "RUN" if value in ("", "true", "VALUE") else value
        return f" (did you mean nemo-run resume {run}?)"
    if names[-1] in _PLACES:
        return f" (did you mean --runs-dir {'FOLDER' if value in ('', 'VALUE') else value}?)"
    return f" (did you mean {FIELD_WORDS[names[-1]]}?)" if names[-1] in FIELD_WORDS else None


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
