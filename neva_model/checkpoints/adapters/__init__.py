"""Adapters on the disk: in checkpoints, in PEFT's format, and merged into the weights that they stand beside."""

from neva_model.checkpoints.adapters.merged import MergedWeights
from neva_model.checkpoints.adapters.peft import write_adapters
from neva_model.checkpoints.adapters.source import CheckpointAdapters

__all__ = ["CheckpointAdapters", "MergedWeights", "write_adapters"]
