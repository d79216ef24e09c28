"""The fixtures of this folder."""

from tests.pipelines.small_stages import four, runs_dir, starts

__all__ = [
    "four",
    "runs_dir",
    "starts",
]
