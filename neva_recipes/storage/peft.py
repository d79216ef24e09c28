"""The files of a directory of PEFT."""

from pathlib import Path

__all__ = ["PEFT_CONFIG", "PEFT_WEIGHTS", "is_peft"]

PEFT_CONFIG = "adapter_config.json"
PEFT_WEIGHTS = "adapter_model.safetensors"


def is_peft(path: Path) -> bool:
    """Return whether a directory holds adapters of PEFT."""
    return (path / PEFT_CONFIG).is_file()
