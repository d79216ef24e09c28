"""What is known about a model on the disk without loading it."""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from neva_recipes.config import PlainTable

__all__ = ["StoredModel", "StoredPart", "StoredTensor", "Use", "part_of_tensors"]

_WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2}
"""Bytes of a value; one for every other type."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor.

    Attributes:
        dtype: Its type, as safetensors spells it.
        shape: Its shape.
        file: Name of the file that holds it; `None` if several do.
    """

    dtype: str
    shape: tuple[int, ...]
    file: str | None

    @property
    def values(self) -> int:
        """The number of its values."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """The bytes that its values take."""
        return self.values * _WIDTHS.get(self.dtype, 1)


@dataclass(frozen=True)
class StoredPart:
    """A part of a model.

    Attributes:
        name: `language`, `vision`, `projector`, or what else a checkpoint holds, such as `optimizer`.
        kind: Its family, or the type of the projector; `None` for what is no part of the model.
        shape: Its sizes in words.
        parameters: Its weights; those that two layers share count once, rows that pad the vocabulary do not count.
            `None` for what is no part of the model.
        tensors: Number of tensors.
        types: Number of values of each type.
        bytes: Bytes of its tensors.
    """

    name: str
    kind: str | None
    shape: str
    parameters: int | None
    tensors: int
    types: Mapping[str, int]
    bytes: int


def part_of_tensors(
    name: str, tensors: Iterable[StoredTensor], kind: str | None = None, shape: str = "", parameters: int | None = None
) -> StoredPart:
    """Return a part with the sums over its tensors."""
    found = list(tensors)
    types: Counter[str] = Counter()
    for tensor in found:
        types[tensor.dtype] += tensor.values
    size = sum(tensor.bytes for tensor in found)
    return StoredPart(name, kind, shape, parameters, len(found), dict(types), size)


@dataclass(frozen=True)
class Use:
    """Something that a model can be used for, or not.

    Attributes:
        name: The field or the command.
        words: What to type.
        problem: Why not; `None` if it can.
    """

    name: str
    words: str
    problem: str | None = None


@dataclass(frozen=True)
class StoredModel:
    """A model on the disk.

    Attributes:
        path: Its directory.
        kind: Who wrote it: a run, or a library of Hugging Face (or the original LLaVA); or a tokenizer alone.
        title: What it is, in words.
        facts: Further facts in words, by their names.
        details: The same and more as plain values, for JSON.
        parts: Its parts, those of the model first.
        tensors: Every tensor, by its name there.
        uses: What it can be used for, and what not.
    """

    path: Path
    kind: Literal["checkpoint", "huggingface", "tokenizer"]
    title: str
    facts: Mapping[str, str]
    details: PlainTable
    parts: tuple[StoredPart, ...]
    tensors: Mapping[str, StoredTensor]
    uses: tuple[Use, ...]

    @property
    def parameters(self) -> int:
        """The weights of the model."""
        return sum(part.parameters or 0 for part in self.parts)

    def to_plain(self, *, with_tensors: bool) -> PlainTable:
        """Return the document for `--format json`.

        Args:
            with_tensors: Whether every tensor is listed.
        """
        listed = {
            name: {"dtype": tensor.dtype, "shape": list(tensor.shape), "file": tensor.file}
            for name, tensor in self.tensors.items()
        }
        return {
            "schema": 1,
            "path": str(self.path),
            "kind": self.kind,
            **self.details,
            "parameters": self.parameters,
            "parts": [dataclasses.asdict(part) for part in self.parts],
            "uses": [dataclasses.asdict(use) for use in self.uses],
            **({"tensors": listed} if with_tensors else {}),
        }
