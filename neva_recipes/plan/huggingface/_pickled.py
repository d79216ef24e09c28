"""The names, types and shapes in a PyTorch file, read without PyTorch and without running anything in the file."""

import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["PickledTensor", "read_pickled"]

_TYPES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
"""Types of `torch.save`, and their names in safetensors."""


class PickledTensor(NamedTuple):
    """A tensor of a file.

    Attributes:
        dtype: Its type, as safetensors spells it; otherwise torch's own name.
        shape: Its shape.
        storage: The storage of its values, which tensors can share, and the offset in it.
    """

    dtype: str
    shape: tuple[int, ...]
    storage: tuple[str, int]


def read_pickled(path: Path) -> dict[str, PickledTensor]:
    """Return the tensors of a file in which `torch.save` stored a dictionary of tensors.

    Raises:
        ValueError: The file is damaged, or holds something else.
        OSError: The file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entry = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
            if entry is None:
                raise ValueError("no PyTorch file")
            with archive.open(entry) as file:
                content = _Reader(file).load()
    except (
        zipfile.BadZipFile,
        pickle.UnpicklingError,
        EOFError,
        AttributeError,
        IndexError,
        KeyError,
        TypeError,
        NotImplementedError,
        RuntimeError,
        OverflowError,
        MemoryError,
        zlib.error,
        struct.error,
    ) as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None
    if not isinstance(content, dict):
        raise ValueError("expected a dictionary of tensors")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, PickledTensor)}
    for name, tensor in tensors.items():
        if not all(isinstance(size, int) for size in tensor.shape):
            raise ValueError(f"the shape of {name} is none")
    return tensors


class _Nothing:
    """Replaces anything that a file names; making, calling and filling it does nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


class _Reader(pickle.Unpickler):
    """Reads tensors and plain containers; any other name becomes a `_Nothing`, so that no code of the file runs."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
            return _tensor
        if module == "torch._utils" and name.startswith("_rebuild_parameter"):
            return _parameter
        if module == "torch._utils" and name == "_rebuild_qtensor":
            return _quantized
        if module.split(".")[0] == "torch":
            return type(name, (_Nothing,), {})
        return _Nothing

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        # ("storage", class of the storage, key of the record, device, number of values)
        return pid[1].__name__, str(pid[2])


def _tensor(storage: tuple[str, str], offset: int, shape: tuple[int, ...], *rest: Any) -> PickledTensor:
    kind, key = storage
    # A type without a storage class of its own comes after stride, requires_grad and hooks.
    name = rest[3].__name__ if kind == "UntypedStorage" and len(rest) > 3 else _TYPES.get(kind, kind)
    return PickledTensor(name, tuple(shape), (key, offset))


def _parameter(tensor: PickledTensor, *_: object) -> PickledTensor:
    return tensor


def _quantized(storage: tuple[str, str], offset: int, shape: tuple[int, ...], *_: object) -> PickledTensor:
    return PickledTensor(storage[0], tuple(shape), (storage[1], offset))
