"""Pipelines and sweeps: starts their stages, each with the outputs of earlier stages."""
