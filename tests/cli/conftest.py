"""The fixtures of this folder."""

from tests.cli.command import folder, nemo_run, no_gpus

__all__ = [
    "folder",
    "nemo_run",
    "no_gpus",
]
