"""The rules for all keys of a NeMo NeVA configuration, collected from the tables of its sections."""

from neva_recipes.nemo._data_keys import DATA_RULES
from neva_recipes.nemo._experiment_keys import EXPERIMENT_RULES
from neva_recipes.nemo._language_keys import LANGUAGE_RULES
from neva_recipes.nemo._optimizer_keys import OPTIMIZER_RULES
from neva_recipes.nemo._parallel_keys import PARALLEL_RULES
from neva_recipes.nemo._trainer_keys import TRAINER_RULES
from neva_recipes.nemo._vision_keys import VISION_RULES
from neva_recipes.nemo.rules import Rule

__all__ = ["RULES"]

RULES: tuple[Rule, ...] = (
    *TRAINER_RULES,
    *EXPERIMENT_RULES,
    *PARALLEL_RULES,
    *LANGUAGE_RULES,
    *VISION_RULES,
    *DATA_RULES,
    *OPTIMIZER_RULES,
)
"""One rule for every key; `docs/nemo.md` shows them as a table."""
