"""What a converted checkpoint keeps of the directory it was made of, so that this can be written again as it was."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from neva_model.checkpoints.huggingface.descriptions import description_files, other_folders
from neva_model.checkpoints.huggingface.files import TYPES
from neva_model.checkpoints.huggingface.naming import ExportedWeights, Naming, write_weights
from neva_model.checkpoints.huggingface.safetensors_files import INDEX_FILE
from neva_model.checkpoints.weights import Weights
from neva_recipes.config import CheckpointError, ModelConfig, PlainTable
from neva_recipes.families import language_family, vision_family
from neva_recipes.plan.huggingface import Directory, read_object
from neva_recipes.plan.huggingface.names import (
    find_language_spelling,
    find_projector_spelling,
    find_vision_spelling,
    is_idle,
)
from neva_recipes.storage.exports import DIGESTS_FILE, exported_training, write_digests
from neva_recipes.storage.whole import copy_file

__all__ = ["Kept", "copy_descriptions", "copy_kept", "folders_left", "keep", "read_kept", "write_again"]

_TENSORS = "tensors.json"
"""The file that says which tensors the directory had, in which files, and of which type."""


@dataclass(frozen=True)
class Kept:
    """A directory that a checkpoint was made of.

    Attributes:
        folder: Where its descriptions are.
        layout: Its layout.
        files: The file of each tensor.
        types: The type of each tensor.
        index: The index of these files; `None` without one.
        has_own_tower: Whether a folder in it held the tower, whose weights are in the checkpoint and not in `files`.
    """

    folder: Path
    layout: Literal["transformers", "original"]
    files: dict[str, str]
    types: dict[str, torch.dtype]
    index: PlainTable | None
    has_own_tower: bool = False

    def comes_back_as(self, layout: str) -> bool:
        """Return whether writing a layout gives the same files again."""
        return layout == self.layout and not self.has_own_tower


def copy_descriptions(source: Path, target: Path) -> None:
    """Copy everything of a directory that is no weights and that says something of the model, but for its digests.

    Raises:
        OSError: A file cannot be read or written.
    """
    for name, file in description_files(source).items():
        if name not in (DIGESTS_FILE, _TENSORS):
            (target / name).parent.mkdir(exist_ok=True)
            copy_file(file, target / name)


def folders_left(directory: Directory) -> list[str]:
    """Return the names of the folders in a directory that are not copied, and hold nothing else that is read."""
    inside = directory.path.absolute()
    tower = _tower_inside(directory)
    read = None if tower is None else tower.relative_to(inside).parts[0]
    return [name for name in other_folders(inside) if name != read]


def keep(directory: Directory, folder: Path) -> None:
    """Write what is kept of a directory.

    Args:
        directory: The directory.
        folder: The folder to write.

    Raises:
        OSError: A file cannot be read or written.
    """
    folder.mkdir()
    copy_descriptions(directory.path, folder)
    index = directory.path / INDEX_FILE
    told = {
        "index": read_object(index, "an index of weight files") if index.is_file() else None,
        "has_own_tower": _tower_inside(directory) is not None,
        "is_original": directory.configuration is not None and directory.configuration.is_original,
        "tensors": {
            name: [tensor.file.name, tensor.dtype] for name, tensor in directory.tensors.items() if not is_idle(name)
        },
    }
    (folder / _TENSORS).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    if (training := exported_training(directory.path)) is not None:
        write_digests(folder, None, training)


def _tower_inside(directory: Directory) -> Path | None:
    """Return the folder in an original LLaVA of the tower that it was trained with, if it has one."""
    named = directory.configuration.tower_source if directory.configuration is not None else None
    path = Path(named).absolute() if named is not None else None
    return path if path is not None and path.is_relative_to(directory.path.absolute()) else None


def copy_kept(source: Path, target: Path) -> None:
    """Copy what a checkpoint has kept, but for digests, for one whose tensors have other sizes than the index counts.

    Args:
        source: What the checkpoint has kept.
        target: The folder to copy into.

    Raises:
        CheckpointError: A file cannot be read as what it should be.
        OSError: A file cannot be read or written.
    """
    copy_descriptions(source, target)
    if (source / _TENSORS).is_file():
        told = {**read_object(source / _TENSORS, "a list of tensors"), "index": None}
        (target / _TENSORS).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def read_kept(folder: Path) -> Kept | None:
    """Return what a checkpoint has kept; `None` if it was not converted.

    Raises:
        CheckpointError: The file cannot be read.
    """
    path = folder / _TENSORS
    if not path.is_file():
        return None
    told = read_object(path, "a list of tensors")
    try:
        files = {name: file for name, (file, _) in told["tensors"].items()}
        types = {name: TYPES[dtype] for name, (_, dtype) in told["tensors"].items()}
        layout: Literal["transformers", "original"] = "original" if told["is_original"] else "transformers"
        return Kept(folder, layout, files, types, told["index"], told["has_own_tower"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise CheckpointError(f"{path}: cannot be read as a list of tensors") from None


def write_again(weights: Weights, model: ModelConfig, kept: Kept, directory: Path, checkpoint: Path) -> None:
    """Write the directory that a checkpoint was made of: the same descriptions, names, types and files.

    Args:
        weights: The weights of the checkpoint.
        model: Its model.
        kept: What it has kept.
        directory: The directory to write into.
        checkpoint: The checkpoint, which the directory names if that one named how it was trained.

    Raises:
        OSError: A file cannot be written.
        CheckpointError: A weight cannot be read.
    """
    family, names = language_family(model.language), kept.files
    language = find_language_spelling(names, family)
    assert language is not None  # the checkpoint was made of it
    naming = Naming(
        family=family,
        language=language,
        vision=None if model.vision is None else find_vision_spelling(names, [vision_family(model.vision)]),
        projector=find_projector_spelling(names) or "",
        has_output=f"{language.head}{family.head_tensor}" in names,
        rows=model.language.vocab_size,
        names=names,
    )
    tensors = ExportedWeights(weights, model, naming, kept.types)
    copy_descriptions(kept.folder, directory)
    if all(names.get(name, "").endswith(".safetensors") for name in tensors.specs):
        # In their old order, so that the files are the same byte for byte if safetensors wrote them.
        tensors.specs = {name: tensors.specs[name] for name in names if name in tensors.specs}
        write_weights(tensors, directory, files={name: names[name] for name in tensors.specs})
        # An index that says otherwise than the files is not kept.
        if kept.index is not None and kept.index.get("weight_map") == {name: names[name] for name in tensors.specs}:
            (directory / INDEX_FILE).write_text(json.dumps(kept.index, indent=2) + "\n", encoding="utf-8")
    else:
        write_weights(tensors, directory)
    if (training := exported_training(kept.folder)) is not None:
        write_digests(directory, checkpoint, training)
