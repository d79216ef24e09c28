"""The names, types and shapes of the tensors in a checkpoint, read without PyTorch and without running its code."""

import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from neva_recipes.config import CheckpointError

__all__ = ["CheckpointTensor", "checkpoint_tensors"]

_METADATA = ".metadata"
"""The pickled table of `torch.distributed.checkpoint`: which tensors there are, and which file holds which piece."""

_TYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
"""Types of PyTorch, and their names in safetensors."""


class CheckpointTensor(NamedTuple):
    """A tensor of a checkpoint, as a whole: however many ranks have saved pieces of it.

    Attributes:
        dtype: Its type, as safetensors spells it.
        shape: Its shape; tensors of equal layers are saved as one, with the layers as the first dimension.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def values(self) -> int:
        """The number of its values."""
        return math.prod(self.shape)


def checkpoint_tensors(checkpoint: Path) -> dict[str, CheckpointTensor]:
    """Return the tensors of a checkpoint by their names, those of the optimizer included.

    Raises:
        CheckpointError: The table of its tensors is missing or damaged.
    """
    path = checkpoint / _METADATA
    try:
        with path.open("rb") as file:
            table = _Reader(file).load()
        entries: Mapping[str, Any] = table.state["state_dict_metadata"]
        # What is no tensor (random states, counters) has no size.
        tensors = {str(name): entry.state for name, entry in entries.items() if "size" in entry.state}
        return {name: _tensor(state) for name, state in sorted(tensors.items())}
    except FileNotFoundError:
        raise CheckpointError(f"{path}: is missing: not a complete checkpoint") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    except (
        pickle.UnpicklingError,
        EOFError,
        AttributeError,
        IndexError,
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        MemoryError,
    ) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise CheckpointError(f"{path}: cannot be read as a table of tensors: {reason}") from None


def _tensor(state: Mapping[str, Any]) -> CheckpointTensor:
    dtype, shape = state["properties"].state[0], state["size"]
    if not isinstance(dtype, str) or not all(isinstance(size, int) for size in shape):
        raise TypeError("a tensor without type and shape")
    return CheckpointTensor(dtype, tuple(shape))


class _Record:
    """Takes the place of every class that the file names; keeps the fields and runs nothing."""

    state: Any = MappingProxyType({})

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch", "Size"):
            return tuple
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        return _Record
