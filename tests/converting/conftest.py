"""Every test here may build a model."""

from tests.converting.models import world
from tests.one_process import one_process

__all__ = ["one_process", "world"]
