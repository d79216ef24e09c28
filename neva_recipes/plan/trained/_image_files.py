"""Sizes and contents of image files, looked up for as long as there is time."""

import time
from hashlib import blake2b
from pathlib import Path

from neva_recipes.plan.trained.same_files import read_ends

__all__ = ["ImageFiles"]


class ImageFiles:
    """Sizes and contents of image files; each file is looked up at most once, and none after a deadline.

    Attributes:
        is_cut: Whether a file was not looked up because the deadline had passed.
    """

    def __init__(self, deadline: float) -> None:
        """Start without a file.

        Args:
            deadline: When to stop, as `time.monotonic` counts.
        """
        self._deadline = deadline
        self._sizes: dict[str, int | None] = {}
        self._contents: dict[str, bytes | None] = {}
        self.is_cut = False

    def size(self, path: str) -> int | None:
        """Return the bytes of a file; `None` if it is not here, or no time is left."""
        if path not in self._sizes:
            try:
                self._sizes[path] = Path(path).stat().st_size if self._has_time() else None
            except (OSError, ValueError):  # not here, or no name of a file
                self._sizes[path] = None
        return self._sizes[path]

    def content(self, path: str) -> bytes | None:
        """Return a digest of the start and the end of a file; `None` if it cannot be read, or no time is left."""
        size = self.size(path)
        if path not in self._contents:
            try:
                is_read = size is not None and self._has_time()
                self._contents[path] = _digest(Path(path), size) if size is not None and is_read else None
            except OSError:
                self._contents[path] = None
        return self._contents[path]

    def _has_time(self) -> bool:
        self.is_cut = self.is_cut or time.monotonic() > self._deadline
        return not self.is_cut


def _digest(path: Path, size: int) -> bytes:
    return blake2b(b"".join(read_ends(path, size)), digest_size=16).digest()
