"""The weights of a model on the disk, read and written one at a time: no model is built, and none is in memory."""

from neva_model.checkpoints.weights.checkpoint import CheckpointWeights, StoredWeights, all_stored
from neva_model.checkpoints.weights.directory import DirectoryWeights
from neva_model.checkpoints.weights.names import Weights, language_names, weight_shapes
from neva_model.checkpoints.weights.writing import VALUES_FILE, Written, write_checkpoint, write_without_values

__all__ = [
    "VALUES_FILE",
    "CheckpointWeights",
    "DirectoryWeights",
    "StoredWeights",
    "Weights",
    "Written",
    "all_stored",
    "language_names",
    "weight_shapes",
    "write_checkpoint",
    "write_without_values",
]
