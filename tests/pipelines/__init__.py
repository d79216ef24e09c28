"""Pipelines and sweeps."""
