"""An open Hugging Face directory: its configuration and tensors, all of them understood."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from neva_recipes.config import CheckpointError
from neva_recipes.families import VisionFamily, vision_families
from neva_recipes.families.tensors import Shape
from neva_recipes.families.towers.clip import CLIP
from neva_recipes.plan.huggingface import names
from neva_recipes.plan.huggingface.configuration import Configuration, read_configuration
from neva_recipes.plan.huggingface.tensors import StoredTensor, are_equal, has_weight_files, read_tensors
from neva_recipes.plan.huggingface.tower import read_tower
from neva_recipes.plan.origins.checkpoints import PARTS

__all__ = ["Directory", "described_directory", "is_huggingface", "kept_directory", "open_directory"]

_FLOATS = ("F64", "F32", "F16", "BF16")
_ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class Directory:
    """The content of a directory.

    Attributes:
        path: The directory.
        configuration: The content of config.json; `None` for a separate projector, which may have none.
        tensors: Every tensor, by its name there; empty if only its configuration is here.
        thorough: Whether weights are compared whole when it matters if they are equal.
    """

    path: Path
    configuration: Configuration | None
    tensors: Mapping[str, StoredTensor]
    thorough: bool

    @property
    def tower(self) -> Mapping[str, Any] | None:
        """What is known about the vision tower, by the keys of a config.json; `None` without a tower.

        Raises:
            CheckpointError: Its tensors are not those of a tower.
        """
        return self._tower[1] if self._tower is not None else None

    @property
    def tower_family(self) -> VisionFamily | None:
        """The family of the vision tower; `None` without a tower.

        Raises:
            CheckpointError: Its tensors are not those of a tower.
        """
        return self._tower[0] if self._tower is not None else None

    @cached_property
    def _tower(self) -> tuple[VisionFamily, Mapping[str, Any]] | None:
        told = self.configuration
        if told is not None and told.tower_family is not None and told.vision is not None:
            return told.tower_family, told.vision
        if self.vision_spelling is None:
            return None
        try:
            return read_tower(self.tensors, self.vision_spelling, told.tower_source if told is not None else None)
        except ValueError as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{self.path}: {error}") from None

    @cached_property
    def language_spelling(self) -> names.LanguageSpelling | None:
        """The spelling of the language model's tensors."""
        family = self.configuration.family if self.configuration is not None else None
        return names.find_language_spelling(self.tensors, family) if family is not None else None

    @cached_property
    def vision_spelling(self) -> str | None:
        """The spelling of the tower's tensors."""
        told = self.configuration.tower_family if self.configuration is not None else None
        return names.find_vision_spelling(self.tensors, vision_families() if told is None else (told,))

    def vision_tensor(self, name: str) -> str:
        """Return the name here of a tensor of the tower.

        Args:
            name: Its name as published, or in transformers' class.
        """
        assert self.vision_spelling is not None and self.tower_family is not None
        return names.vision_name(name, self.vision_spelling, self.tower_family, self.tensors)

    @cached_property
    def projector_spelling(self) -> str | None:
        """The spelling of the projector's tensors."""
        return names.find_projector_spelling(self.tensors)

    @property
    def projector_layers(self) -> int:
        """Linear layers of the projector; an exported linear one counts as one, though an identity follows it."""
        spelling, configuration = self.projector_spelling or "", self.configuration
        if spelling.endswith("multi_modal_projector."):
            return 1 if configuration is not None and configuration.projector_hidden_act == "linear" else 2
        return names.projector_layers(self.tensors, spelling)

    @property
    def projector_widths(self) -> tuple[int, int]:
        """Width of the features that the projector reads, and of its output.

        Raises:
            CheckpointError: Its first weight is not a matrix.
        """
        first = self.tensors[names.projector_names(self.projector_spelling or "", 0, self.projector_layers)[0]]
        if len(first.shape) != 2:
            raise CheckpointError(f"{first.file}: its projector has shape {list(first.shape)}, expected a matrix")
        hidden, features = first.shape
        return features, hidden

    @cached_property
    def has_own_output(self) -> bool:
        """Whether the output layer has weights of its own, different from the embeddings."""
        spelling, head = self.language_spelling, self._head
        if spelling is None or head is None or head not in self.tensors:
            return False
        assert self.configuration is not None and self.configuration.family is not None
        pair = self.tensors[head], self.tensors[f"{spelling.body}{self.configuration.family.embedding_tensor}"]
        return not are_equal(*pair, thorough=self.thorough)

    @property
    def _head(self) -> str | None:
        """The name of the output layer's weight; `None` without a language model."""
        spelling = self.language_spelling
        if spelling is None or self.configuration is None or self.configuration.family is None:
            return None
        return f"{spelling.head}{self.configuration.family.head_tensor}"

    def missing(self, part: str) -> str | None:
        """Return which tensors of a part are missing, for a message; `None` if none are."""
        spelling, told = getattr(self, f"{part}_spelling"), self.configuration
        if spelling is None:
            family = told.family if told is not None else None
            embedding = (
                f"{family.prefix}{family.embedding_tensor}" if family is not None else "model.embed_tokens.weight"
            )
            tower = told.tower_family if told is not None and told.tower_family is not None else CLIP
            anchor, what = {
                "language": (embedding, "language model"),
                "vision": (f"{tower.inner}{tower.patches}", "vision tower"),
                "projector": ("multi_modal_projector.linear_1.weight", "projector"),
            }[part]
            return f"has no tensor {anchor}, so no {what}"
        expected = dict(self._expected(part))
        if self._head is not None and self._is_tied:
            expected.pop(self._head, None)
        lacking = [name for name in expected if name not in self.tensors]
        return f"has no tensor {_some(lacking)}" if lacking else None

    @property
    def _is_tied(self) -> bool:
        text = self.configuration.text if self.configuration is not None else None
        return text is not None and bool(text["tie_word_embeddings"])

    def _expected(self, part: str) -> Iterator[tuple[str, Shape]]:
        """Yield the names and shapes of a part's tensors."""
        configuration, spelling = self.configuration, getattr(self, f"{part}_spelling")
        language = configuration.language if configuration is not None else None
        if spelling is None:
            return
        if part == "vision" and self._tower is not None:
            yield from names.vision_tensors(spelling, *self._tower, self.tensors)
        elif part == "language" and configuration is not None and language is not None:
            assert configuration.family is not None
            yield from names.language_tensors(spelling, configuration.family, language)
        elif part == "projector":
            features, hidden = self.projector_widths
            if configuration is not None and configuration.projector_width is not None:
                features = configuration.projector_width
            elif self.tower is not None:
                features = self.tower["hidden_size"]
            if language is not None:
                hidden = language.hidden_size
            layers = 2 if spelling.endswith("multi_modal_projector.") else self.projector_layers
            yield from names.projector_tensors(spelling, layers, features, hidden)

    def part_tensors(self, part: str) -> dict[str, StoredTensor]:
        """Return the tensors of a part, by their names here.

        Args:
            part: `language`, `vision` or `projector`.
        """
        return {name: self.tensors[name] for name, _ in self._expected(part) if name in self.tensors}

    @property
    def vocabulary_tensors(self) -> tuple[str, ...]:
        """The names of the matrices with a row for each token: the embedding, and the output layer if it is there."""
        spelling, head = self.language_spelling, self._head
        if spelling is None or head is None or self.configuration is None or self.configuration.family is None:
            return ()
        embedding = f"{spelling.body}{self.configuration.family.embedding_tensor}"
        return (embedding, head) if head in self.tensors else (embedding,)

    def repeated_values(self) -> int:
        """Return how many values stand in the directory twice: an output layer that is tied and yet stored."""
        head = self._head
        if head is None or head not in self.tensors or not self._is_tied or self.has_own_output:
            return 0
        return math.prod(self.tensors[head].shape)

    def check(self) -> None:
        """Check that every tensor is a float, has a place in the model, and has the shape for it.

        Raises:
            CheckpointError: A tensor does not; the message names it.
        """
        coded = [
            name for name, tensor in self.tensors.items() if tensor.dtype not in _FLOATS and not names.is_idle(name)
        ]
        if coded:
            kind = self.tensors[coded[0]].dtype
            raise CheckpointError(
                f"{self.path}: {_some(coded)} is of type {kind}, expected {', '.join(_FLOATS[:-1])} or {_FLOATS[-1]}: "
                "quantized weights are not supported; save them dequantized"
            )
        expected = {name: shape for part in PARTS for name, shape in self._expected(part)}
        strange = [name for name in self.tensors if name not in expected and not names.is_idle(name)]
        if strange:
            family = self.configuration.architecture if self.configuration is not None else "projector"
            raise CheckpointError(
                f"{self.path}: {_some(strange)} is not understood: a {family} of this configuration has no such tensor"
            )
        for name, tensor in self.tensors.items():
            if not names.is_idle(name) and tensor.shape != expected[name]:
                raise CheckpointError(
                    f"{tensor.file}: {name} has shape {list(tensor.shape)}, but config.json and the other tensors need "
                    f"{list(expected[name])}"
                )


def _some(found: list[str]) -> str:
    """Return the first name, and how many more there are."""
    return found[0] + (f" (and {len(found) - 1} more)" if len(found) > 1 else "")


def is_huggingface(path: Path) -> bool:
    """Return whether a directory has a layout of Hugging Face or of the original LLaVA, and is not one of our runs."""
    names_there = ("config.json", _ADAPTER)
    return any((path / name).is_file() for name in names_there) or has_weight_files(path)


def open_directory(path: Path, *, thorough: bool = False) -> Directory:
    """Open a directory and check that everything in it is understood.

    Args:
        path: The directory.
        thorough: Compare weights whole when it matters if they are equal, not just parts of them.

    Raises:
        CheckpointError: It holds an adapter, no weights, damaged weights, or something that is not understood.
    """
    if (path / _ADAPTER).is_file():
        raise CheckpointError(
            f"{path}: {_ADAPTER} says that an adapter lies there, which is not applied: merge it into its model first "
            "(peft: merge_and_unload)"
        )
    # Stage 1 of the original LLaVA may write nothing but mm_projector.bin.
    alone = not (path / "config.json").is_file() and (path / "mm_projector.bin").is_file()
    configuration = None if alone else _understood(path)
    directory = Directory(path, configuration, read_tensors(path), thorough)
    directory.check()
    return directory


def described_directory(path: Path) -> Directory:
    """Open a directory whose weights are not here, or not all of them: its configuration tells what they will be.

    Raises:
        CheckpointError: config.json is missing or not understood.
    """
    return Directory(path, _understood(path), {}, thorough=False)


def _understood(path: Path) -> Configuration:
    configuration = read_configuration(path)
    for concerned, problem in configuration.problems:
        if concerned is None:
            raise CheckpointError(f"{path}/config.json: {problem}")
    return configuration


def kept_directory(path: Path) -> Directory:
    """Return what `open_directory` returns; the directory is read again only if its files have changed."""
    try:
        files = tuple(
            (entry.name, status.st_size, status.st_mtime_ns)
            for entry in sorted(path.iterdir())
            for status in (entry.stat(),)
        )
    except OSError:  # a broken link next to the files that are read
        return open_directory(path)
    return _open(path, files)


@lru_cache(maxsize=16)
def _open(path: Path, _: object) -> Directory:
    return open_directory(path)
