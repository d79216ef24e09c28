"""The fixtures of this folder."""

from tests.cli.command import folder, nemo_run, no_gpus
from tests.cli.finished_run import finished

__all__ = [
    "finished",
    "folder",
    "nemo_run",
    "no_gpus",
]
