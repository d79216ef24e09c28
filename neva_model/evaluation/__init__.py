"""Measures a trained model on data that it has not seen."""

from neva_model.evaluation.command import main

__all__ = ["main"]
