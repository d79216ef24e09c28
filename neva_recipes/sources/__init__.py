"""Data files: their formats, and their records whatever the format.

The product reads JSON arrays, JSON lines and plain text; packages may offer further formats.
"""

from neva_recipes.sources.source import DataSource

__all__ = ["DataSource"]
