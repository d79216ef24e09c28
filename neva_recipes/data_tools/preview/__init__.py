"""Samples as a model sees them: their tokens as text, and which of them carry loss."""
