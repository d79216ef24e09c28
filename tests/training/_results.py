"""Reading what a run has left: its losses and the tensors of its checkpoints."""

import csv
from pathlib import Path

import torch
from torch.distributed.checkpoint import FileSystemReader, load
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

VOCABULARY = 640
_WEIGHTS = ("language.", "projector.", "vision.")


def losses(run: Path, column: str = "reduced_train_loss") -> list[float]:
    """Return a metric of every step."""
    with (run / "metrics" / "metrics.csv").open(newline="") as file:
        return [float(row[column]) for row in csv.DictReader(file) if row[column]]


def tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Return every tensor of a checkpoint, whole, read by torch's own reader."""
    metadata = FileSystemReader(checkpoint).read_metadata().state_dict_metadata
    state = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    load(state, storage_reader=FileSystemReader(checkpoint), no_dist=True)
    return state


def weights_of(checkpoint: Path, prefix: str = "") -> dict[str, torch.Tensor]:
    """Return the weights, without the rows that pad the vocabulary, whose number depends on the layout.

    With `average.` as the prefix they are the averaged ones.
    """
    whole = {name.removeprefix(prefix): value for name, value in tensors(checkpoint).items() if name.startswith(prefix)}
    found = {name: tensor for name, tensor in whole.items() if name.startswith(_WEIGHTS)}
    padded = ("language.embedding.", "language.output_layer.")
    return {name: tensor[:VOCABULARY] if name.startswith(padded) else tensor for name, tensor in found.items()}
