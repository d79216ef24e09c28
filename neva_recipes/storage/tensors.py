"""The names, types and shapes of the tensors in a checkpoint, read without PyTorch and without running its code."""

import math
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from neva_recipes.config import CheckpointError

__all__ = [
    "OPTIMIZER",
    "CheckpointTensor",
    "TensorPiece",
    "checkpoint_objects",
    "checkpoint_tensors",
    "has_optimizer",
    "has_random_states",
    "is_random_state",
]

OPTIMIZER = "optimizer."
"""What the names of the state of the optimizer begin with."""

_Read = TypeVar("_Read")

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


class TensorPiece(NamedTuple):
    """A part of a tensor, as one rank has saved it.

    Attributes:
        first: Where it begins in the tensor, in each dimension.
        shape: Its shape.
        file: Name of the file that holds it, as `torch.save` writes it.
        place: First byte in the file, and number of bytes.
    """

    first: tuple[int, ...]
    shape: tuple[int, ...]
    file: str
    place: tuple[int, int]


class CheckpointTensor(NamedTuple):
    """A tensor of a checkpoint, as a whole: however many ranks have saved pieces of it.

    Attributes:
        dtype: Its type, as safetensors spells it.
        shape: Its shape; tensors of equal layers are saved as one, with the layers as the first dimension.
        pieces: Where its values are.
    """

    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[TensorPiece, ...]

    @property
    def values(self) -> int:
        """The number of its values."""
        return math.prod(self.shape)


def checkpoint_tensors(checkpoint: Path) -> dict[str, CheckpointTensor]:
    """Return the tensors of a checkpoint by their names, those of the optimizer included.

    Raises:
        CheckpointError: The table of its tensors is missing or damaged.
    """

    def read(table: Mapping[str, Any]) -> dict[str, CheckpointTensor]:
        entries: Mapping[str, Any] = table["state_dict_metadata"]
        # What is no tensor (random states, counters) has no size.
        tensors = {str(name): entry.state for name, entry in entries.items() if "size" in entry.state}
        places = _places(table["storage_data"])
        return {name: _tensor(name, state, places) for name, state in sorted(tensors.items())}

    return _from_table(checkpoint, read)


def checkpoint_objects(checkpoint: Path) -> dict[str, tuple[str, int, int]]:
    """Return what a checkpoint holds beside tensors: by its name a file, the first byte in it, and the number of bytes.

    Raises:
        CheckpointError: The table of its tensors is missing or damaged.
    """

    def read(table: Mapping[str, Any]) -> dict[str, _Place]:
        stored = table["storage_data"].items()
        found = {str(index.state["fqn"]): _place(info) for index, info in stored if index.state.get("offset") is None}
        if any(Path(file).name != file for file, _, _ in found.values()):
            raise ValueError("a piece is in no file of the checkpoint")
        return dict(sorted(found.items()))

    return _from_table(checkpoint, read)


def has_optimizer(checkpoint: Path) -> bool:
    """Return whether a checkpoint has the state of the optimizer, without which no run goes on.

    Raises:
        CheckpointError: The table of its tensors is missing or damaged.
    """
    return any(name.startswith(OPTIMIZER) for name in checkpoint_tensors(checkpoint))


def has_random_states(checkpoint: Path) -> bool:
    """Return whether a checkpoint has the random states of the ranks that have saved it: no other program writes them.

    Raises:
        CheckpointError: The table of its tensors is missing or damaged.
    """
    return any(map(is_random_state, checkpoint_objects(checkpoint)))


def is_random_state(name: str) -> bool:
    """Return whether something in a checkpoint is the random state of a rank."""
    return name.startswith("random/")


def _from_table(checkpoint: Path, read: Callable[[Mapping[str, Any]], _Read]) -> _Read:
    path = checkpoint / _METADATA
    try:
        with path.open("rb") as file:
            return read(_Reader(file).load().state)
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


_Place = tuple[str, int, int]
"""A file, the first byte in it, and the number of bytes."""


def _places(stored: Mapping[Any, Any]) -> dict[tuple[str, tuple[int, ...]], _Place]:
    """Return where each piece is, by the name of its tensor and where it begins in that."""
    places = {}
    for index, info in stored.items():
        if (first := index.state.get("offset")) is not None:  # not of what is no tensor
            places[str(index.state["fqn"]), tuple(first)] = _place(info)
    return places


def _place(info: Any) -> _Place:
    file, begin, length = (info.state[name] for name in ("relative_path", "offset", "length"))
    return file, int(begin), int(length)


def _tensor(name: str, state: Mapping[str, Any], places: Mapping[Any, _Place]) -> CheckpointTensor:
    dtype, shape = state["properties"].state[0], state["size"]
    if not isinstance(dtype, str) or not all(isinstance(size, int) for size in shape):
        raise TypeError("a tensor without type and shape")
    pieces = []
    for chunk in state["chunks"]:
        first, sizes = tuple(chunk.state["offsets"]), tuple(chunk.state["sizes"])
        file, begin, length = places[name, first]
        if Path(file).name != file or len(first) != len(shape) or len(sizes) != len(shape):
            raise ValueError(f"a piece of {name} is in no file of the checkpoint")
        pieces.append(TensorPiece(first, sizes, file, (begin, length)))
    return CheckpointTensor(dtype, tuple(shape), tuple(pieces))


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
