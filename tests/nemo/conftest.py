"""The fixtures of this folder."""

from tests.nemo.importing import folder, import_nemo

__all__ = [
    "folder",
    "import_nemo",
]
