"""The fixtures of this folder."""

from tests.results.written_runs import folder, make_run

__all__ = [
    "folder",
    "make_run",
]
