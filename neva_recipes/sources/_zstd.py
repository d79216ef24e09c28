"""Unpacks zstd with the package zstandard, which is not among the dependencies."""

import io
from importlib.util import find_spec
from typing import Any, Protocol

__all__ = ["ZSTD", "DamagedZstdError", "ZstdContent", "can_unpack_zstd"]

ZSTD = b"\x28\xb5\x2f\xfd"
"""First bytes of a zstd frame (RFC 8878, section 3.1.1). They are no UTF-8."""

_READ = 2**16


class DamagedZstdError(OSError):
    """Bytes that are no zstd frame."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def can_unpack_zstd() -> bool:
    """Return whether the package is installed."""
    return find_spec("zstandard") is not None


class ZstdContent(io.RawIOBase):
    """What zstd frames behind each other unpack to; the library's own reader takes a truncated frame for a whole."""

    def __init__(self, file: _Readable) -> None:
        """Unpack a file from where it stands."""
        import zstandard

        self._file = file
        self._library = zstandard
        self._frame: Any = None
        self._packed = b""
        self._rest = b""

    def readable(self) -> bool:
        """Return true."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer, which need not become full.

        Raises:
            EOFError: The file ends within a frame.
            DamagedZstdError: It holds something other than frames.
        """
        while not self._rest:
            if not (packed := self._packed or self._file.read(_READ)):
                if self._frame is not None:
                    raise EOFError
                return 0
            self._unpack(packed)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def _unpack(self, packed: bytes) -> None:
        self._frame = self._frame or self._library.ZstdDecompressor().decompressobj()
        try:
            self._rest = self._frame.decompress(packed)
        except self._library.ZstdError as error:
            raise DamagedZstdError(str(error)) from None
        self._packed = b""
        if self._frame.eof:
            self._packed, self._frame = self._frame.unused_data, None
