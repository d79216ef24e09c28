"""Checkpoints: our own distributed ones, and Hugging Face directories."""
