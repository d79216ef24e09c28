"""Every test here may build a model."""

from tests.one_process import one_process

__all__ = ["one_process"]
