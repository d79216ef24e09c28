"""The fixtures of this folder."""

from tests.end_to_end.finished_run import finished, world

__all__ = [
    "finished",
    "world",
]
