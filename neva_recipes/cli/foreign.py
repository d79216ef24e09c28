"""Recognises configurations of other trainers, given where a recipe is expected, and says what to do with them."""

import re
import shlex
from pathlib import Path

import yaml

from neva_recipes.cli.words import FIELD_WORDS
from neva_recipes.config import PlainTable, Recipe, expand_path, field_types
from neva_recipes.run_directory.state import read_small_text

__all__ = ["foreign_configuration"]

_SIGNS = (
    ("LLaMA-Factory", ({"finetuning_type"}, {"stage", "model_name_or_path"}, {"dataset", "template"})),
    ("Axolotl", ({"base_model", "datasets"},)),
    ("ms-swift", ({"train_type"}, {"tuner_type"})),
    ("TRL", ({"model_name_or_path", "dataset_name"},)),
    ("NeMo", ({"exp_manager"},)),
)
"""Trainers, each with sets of top-level keys, one of which tells that a file is its configuration."""

_MARK_OF_TORCHTUNE = "_component_"

_IMPORT_OF_XTUNER = re.compile(r"^\s*(?:from|import)\s+(?:xtuner|mmengine)\b", re.MULTILINE)

_MOST_NAMED = 4


def foreign_configuration(path: Path) -> str | None:
    """Return an error about a file that is another trainer's configuration, with what to do; `None` for other files."""
    try:
        text = read_small_text(expand_path(path))
        if path.suffix == ".py":
            return _refusal(path, "XTuner", {}) if _IMPORT_OF_XTUNER.search(text) else None
        values = yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    if not isinstance(values, dict):
        return None
    model = values.get("model")
    if isinstance(model, dict) and "mm_cfg" in model:
        command = f"nemo-run import-nemo {shlex.quote(str(path))}"
        return f"{path}: is a configuration of NeMo and no saved recipe: {command} makes a recipe of it"
    trainer = _trainer_of(values)
    return None if trainer is None else _refusal(path, trainer, values)


def _trainer_of(values: PlainTable) -> str | None:
    """Return the trainer whose configuration these values are; `None` if they may be a recipe."""
    for trainer, signs in _SIGNS:
        if any(sign <= values.keys() for sign in signs):
            return trainer
    if any(isinstance(value, dict) and _MARK_OF_TORCHTUNE in value for value in values.values()):
        return "torchtune"
    others = [key for key in values if key not in field_types(Recipe)]
    return "another trainer" if len(others) > len(values) / 2 and any(key in FIELD_WORDS for key in others) else None


def _refusal(path: Path, trainer: str, values: PlainTable) -> str:
    fields = [
        f"{FIELD_WORDS[key]} for {key}" for key in values if key in FIELD_WORDS and key not in field_types(Recipe)
    ]
    more = ", and so on" if len(fields) > _MOST_NAMED else ""
    named = f": {', '.join(fields[:_MOST_NAMED])}{more}" if fields else ""
    return (
        f"{path}: is a configuration of {trainer}, which is not read: begin with a recipe that nemo-run list shows, "
        f"and set its fields{named}"
    )
