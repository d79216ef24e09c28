"""Adapters on the disk: in checkpoints, in PEFT's format, and merged into the weights that they stand beside."""
