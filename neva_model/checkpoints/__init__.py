"""Checkpoints: distributed ones of our own, and Hugging Face directories."""
