"""The weights of a model on the disk, read and written one at a time: no model is built, and none is in memory."""

from neva_model.checkpoints.weights.checkpoint import CheckpointWeights
from neva_model.checkpoints.weights.directory import DirectoryWeights
from neva_model.checkpoints.weights.names import Weights, language_names, weight_shapes
from neva_model.checkpoints.weights.writing import write_checkpoint

__all__ = [
    "CheckpointWeights",
    "DirectoryWeights",
    "Weights",
    "language_names",
    "weight_shapes",
    "write_checkpoint",
]
