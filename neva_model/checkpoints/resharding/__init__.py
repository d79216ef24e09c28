"""Checkpoints as another layout of ranks would have saved them."""
