"""The files of a directory of PEFT."""

import json
import re
from pathlib import Path
from typing import Any

from neva_recipes.config import CheckpointError

__all__ = ["PEFT_CONFIG", "PEFT_WEIGHTS", "PeftSettings", "is_peft"]

PEFT_CONFIG = "adapter_config.json"
PEFT_WEIGHTS = "adapter_model.safetensors"

_DEFAULT = 8
"""Rank and alpha where the file has none, as in PEFT."""

_CHANGES_WEIGHTS = ("pissa", "olora", "corda", "loftq")
"""Beginnings of `init_lora_weights` with which PEFT changes the weights beside the adapters."""


def is_peft(path: Path) -> bool:
    """Return whether a directory holds adapters of PEFT."""
    return (path / PEFT_CONFIG).is_file()


class PeftSettings:
    """The settings of a directory of PEFT."""

    def __init__(self, path: Path) -> None:
        """Read them.

        Args:
            path: The file adapter_config.json.

        Raises:
            CheckpointError: It cannot be read, or belongs to adapters of another kind.
        """
        self._path = path
        try:
            self._values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: cannot be read: {error}") from None
        if not isinstance(self._values, dict) or (kind := self._values.get("peft_type")) != "LORA":
            found = "no table" if not isinstance(self._values, dict) else f"peft_type={kind}"
            raise CheckpointError(f"{path}: has {found}, expected peft_type=LORA")
        begun = self._values.get("init_lora_weights")
        if isinstance(begun, str) and begun.lower().startswith(_CHANGES_WEIGHTS):
            raise CheckpointError(
                f"{path}: has init_lora_weights={begun}, so they were trained beside other weights than those of the "
                "model: save them with PEFT's path_initial_model_for_weight_conversion"
            )
        if not path.with_name(PEFT_WEIGHTS).is_file():
            raise CheckpointError(
                f"{path.parent}: has no {PEFT_WEIGHTS}: load it with PEFT, whose save_pretrained writes that"
            )

    @property
    def kind(self) -> str:
        """The kind of the adapters: lora, rslora or dora."""
        return "dora" if self._values.get("use_dora") else "rslora" if self._values.get("use_rslora") else "lora"

    @property
    def has_patterns(self) -> bool:
        """Whether some adapters have a rank or an alpha of their own."""
        return bool(self._values.get("rank_pattern") or self._values.get("alpha_pattern"))

    def scale(self, module: str) -> float:
        """Return by what an adapter is multiplied.

        Args:
            module: The name of its linear layer in the model.

        Raises:
            CheckpointError: Rank or alpha is no positive number.
        """
        rank, alpha = self.rank(module), self.alpha(module)
        return alpha / (rank**0.5 if self._values.get("use_rslora") else rank)

    def rank(self, module: str = "") -> int:
        """Return the rank of an adapter, without a module that of most; raises as `scale` does."""
        return int(self._value("r", "rank_pattern", module))

    def alpha(self, module: str = "") -> float:
        """Return the alpha of an adapter, without a module that of most; raises as `scale` does."""
        return self._value("lora_alpha", "alpha_pattern", module)

    def _value(self, name: str, pattern: str, module: str) -> float:
        value: Any = self._values.get(name, _DEFAULT)
        try:
            # PEFT takes the first pattern that is the end of a name.
            for key, own in (self._values.get(pattern) or {}).items():
                if re.match(rf"(.*\.)?({key})$", module):
                    value = own
                    break
        except (AttributeError, re.error) as error:
            raise CheckpointError(f"{self._path}: {pattern} cannot be read: {error}") from None
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise CheckpointError(f"{self._path}: {name} is {value!r}, expected a positive number")
        return float(value)
