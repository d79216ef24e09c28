"""The tensors in a Hugging Face directory, read from the headers of its files."""

import math
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from neva_recipes.config import CheckpointError, pointer_in_place
from neva_recipes.families.values import shown
from neva_recipes.plan.huggingface.json_files import LONGEST_JSON, parse_object, read_object

__all__ = ["StoredTensor", "are_equal", "has_all_weights", "has_weight_files", "read_tensors"]

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SOURCES = (_SINGLE, _INDEX, "pytorch_model.bin", "pytorch_model.bin.index.json", "mm_projector.bin")
"""Weight files in the order in which transformers looks for them; LLaVA's separate projector comes last."""

_WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Bytes of a value, for the types that can be read."""

_MOST_DIMENSIONS = 16


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a directory.

    Attributes:
        file: The file that holds it.
        dtype: Its type, as safetensors spells it.
        shape: Its shape.
        place: Its place in the file: first and last byte in a safetensors file, record and offset in a PyTorch file.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    place: tuple[int | str, int]


def has_weight_files(directory: Path) -> bool:
    """Return whether a directory holds weights under the names that Hugging Face's libraries and LLaVA give them."""
    return any((directory / name).is_file() for name in _SOURCES)


def has_all_weights(directory: Path) -> bool:
    """Return whether a directory holds weights, and each file of them that an index names."""
    try:
        return bool(_weight_files(directory))
    except CheckpointError:
        return False


def read_tensors(directory: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a directory, from the files that transformers would read.

    Raises:
        CheckpointError: There are no weights, the index is broken, a file it names is missing or damaged, or two files
            hold the same tensor.
    """
    tensors: dict[str, StoredTensor] = {}
    for file in _weight_files(directory):
        try:
            found = _safetensors(file) if file.suffix == ".safetensors" else _pytorch(file)
        except OSError as error:
            raise CheckpointError(f"{file}: cannot be read: {error.strerror or error}") from None
        except ValueError as error:
            reason = " ".join(str(error).split())[:200]
            damaged = f"is damaged or incomplete ({reason}); fetch it again"
            raise CheckpointError(f"{file}: {pointer_in_place(file) or damaged}") from None
        twice = next((name for name in found if name in tensors), None)
        if twice is not None:
            raise CheckpointError(f"{file}: holds {twice}, which {tensors[twice].file.name} holds too")
        tensors |= found
    if not tensors:
        raise CheckpointError(f"{directory}: holds no weights: there are no tensors in its files")
    return tensors


def _weight_files(directory: Path) -> list[Path]:
    source = next((directory / name for name in _SOURCES if (directory / name).is_file()), None)
    if source is None:
        for index, pattern in ((_INDEX, "*-of-*.safetensors"), ("pytorch_model.bin.index.json", "*-of-*.bin")):
            if any(directory.glob(pattern)):
                raise CheckpointError(
                    f"{directory / index}: is missing, but there are shards; fetch the directory again"
                )
        expected = f"{_SINGLE}, pytorch_model.bin, or shards with an index"
        raise CheckpointError(f"{directory}: holds no weights: expected {expected}")
    if source.suffix != ".json":
        return [source]
    weight_map = read_object(source, "an index of weight files").get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            f"{source}: cannot be read as an index of weight files: expected a weight_map of tensors and their files"
        )
    files = {}
    for tensor, name in weight_map.items():
        if isinstance(name, str) and name in files:
            continue
        if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
            raise CheckpointError(
                f"{source}: says that {tensor} lies in {shown(name)}, expected the name of a file of this directory"
            )
        files[name] = directory / name
        if not files[name].is_file():
            raise CheckpointError(f"{files[name]}: is missing, but {source.name} names it; fetch the directory again")
    return sorted(files.values())


def _safetensors(file: Path) -> dict[str, StoredTensor]:
    """Read the header: its length in eight bytes, little-endian, then that many bytes of JSON; the values follow.

    Raises:
        OSError: The file cannot be read.
        ValueError: The header is invalid, or does not match the file.
    """
    with file.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(0)
        if size < 8:
            raise ValueError(f"it has {size} bytes, no header")
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > min(size - 8, LONGEST_JSON):
            raise ValueError(f"it has {size} bytes, and a header of {length}")
        header = parse_object(stream.read(length), once=True)
    header.pop("__metadata__", None)
    tensors = {name: _entry(file, name, entry, 8 + length) for name, entry in header.items()}
    end = 8 + length
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].place):
        if tensor.place[0] != end:
            raise ValueError(f"the values of {name} begin at {tensor.place[0]}, those before them end at {end}")
        end = tensor.place[1]
    if end != size:
        raise ValueError(f"it has {size} bytes, its header {end}")
    return tensors


def _entry(file: Path, name: str, entry: Any, first: int) -> StoredTensor:
    """Return the tensor that an entry of a header describes.

    Args:
        file: The file.
        name: Name of the tensor.
        entry: The entry.
        first: Byte of the file at which offsets begin to count.

    Raises:
        ValueError: The entry is invalid.
    """
    entry = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"its header says no type, shape and place of {name}")
    begin, end = offsets
    # The product of a long shape could take forever to compute.
    if len(shape) > _MOST_DIMENSIONS or (dtype in _WIDTHS and end - begin != math.prod(shape) * _WIDTHS[dtype]):
        raise ValueError(f"{name} has {end - begin} bytes, which its type {dtype} and shape {shown(shape)} do not make")
    return StoredTensor(file, dtype, tuple(shape), (first + begin, first + end))


def _are_sizes(found: object) -> bool:
    return isinstance(found, list) and all(
        isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 2**63 for size in found
    )


def _pytorch(file: Path) -> dict[str, StoredTensor]:
    # Imported here because pickle and zipfile take milliseconds, which a dry run without such a file can save.
    from neva_recipes.plan.huggingface._pickled import read_pickled

    return {name: StoredTensor(file, one.dtype, one.shape, one.storage) for name, one in read_pickled(file).items()}


def are_equal(one: StoredTensor, other: StoredTensor, *, thorough: bool) -> bool:
    """Return whether two tensors hold the same values.

    Args:
        one: A tensor.
        other: Another tensor.
        thorough: Compare every byte, not just pieces from all over the tensor.
    """
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if (one.file, one.place) == (other.file, other.place):
        return True
    return all(left == right for left, right in zip(_bytes(one, thorough), _bytes(other, thorough), strict=True))


_PIECE, _PIECES = 2**16, 16
"""Bytes of a piece that is compared, and number of pieces of a tensor that is not compared whole."""


def _bytes(tensor: StoredTensor, thorough: bool) -> Iterator[bytes]:
    length = math.prod(tensor.shape) * _WIDTHS.get(tensor.dtype, 1)
    if thorough or length <= _PIECE * _PIECES:
        pieces = [(start, min(_PIECE, length - start)) for start in range(0, length, _PIECE)]
    else:
        pieces = [((length - _PIECE) * number // (_PIECES - 1), _PIECE) for number in range(_PIECES)]
    with _open_values(tensor) as stream:
        first = stream.tell()
        for start, size in pieces:
            stream.seek(first + start)
            yield stream.read(size)


@contextmanager
def _open_values(tensor: StoredTensor) -> Iterator[IO[bytes]]:
    """Open a file at the place where the values of a tensor begin."""
    if tensor.file.suffix == ".safetensors":
        with tensor.file.open("rb") as stream:
            stream.seek(int(tensor.place[0]))
            yield stream
        return
    with zipfile.ZipFile(tensor.file) as archive:
        entry = next(name for name in archive.namelist() if name.endswith(f"/data/{tensor.place[0]}"))
        with archive.open(entry) as stream:
            stream.seek(tensor.place[1] * _WIDTHS.get(tensor.dtype, 1))
            yield stream
