"""A recipe that any plan accepts."""

from executors.conformance import tiny_recipe as make_recipe

__all__ = ["make_recipe"]
