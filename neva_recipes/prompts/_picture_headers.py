"""Width, height and EXIF rotation of PNG and JPEG files, the formats of nearly all images, from their first bytes.

Pillow reads them too, but its import takes a tenth of a dry run, and it takes several times as long to open a file.
"""

import os
from typing import BinaryIO, Literal

__all__ = ["BEGIN", "header_size", "is_animated", "is_turned"]

BEGIN = 4096
"""Bytes of the beginning of a file that hold the EXIF rotation of nearly all files."""

_PNG = b"\x89PNG\r\n\x1a\n"

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG markers before the size of a frame. Source: ITU-T T.81, table B.1."""

_ALONE = frozenset((0x01, *range(0xD0, 0xDB)))
"""Markers without a segment length, and the marker of the pixels, which ends the header."""

_APP1, _EXIF = 0xE1, b"Exif\0\0"
_ORIENTATION = 0x0112
"""Segment, its name, and tag of the rotation. Source: CIPA DC-008 (Exif 2.32), sections 4.5.4 and 4.6.4."""

_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}


def header_size(file: BinaryIO) -> tuple[int, int] | None:
    """Return width and height of a PNG or JPEG file; `None` for other files, or if the header is not understood.

    Args:
        file: The file, at its beginning.
    """
    begin = file.read(24)
    if begin.startswith(_PNG) and begin[12:16] == b"IHDR" and len(begin) == 24:
        return int.from_bytes(begin[16:20], "big"), int.from_bytes(begin[20:24], "big")
    return _jpeg_size(file) if begin.startswith(b"\xff\xd8\xff") else None


def _jpeg_size(file: BinaryIO) -> tuple[int, int] | None:
    file.seek(2)
    while len(segment := file.read(9)) == 9 and segment[0] == 0xFF:
        marker, length = segment[1], int.from_bytes(segment[2:4], "big")
        if marker in _FRAMES:
            return int.from_bytes(segment[7:9], "big"), int.from_bytes(segment[5:7], "big")
        if marker == 0xFF:  # markers may be padded with such bytes
            length = -1
        elif marker in _ALONE or length < 2:
            return None
        file.seek(length + 2 - len(segment), os.SEEK_CUR)
    return None


def is_animated(begin: bytes) -> bool:
    """Return whether the first bytes of a file are those of a PNG file with several frames.

    Their number stands before the first one. Source: W3C's PNG specification, third edition, section 11.3.4.1.
    """
    frames = begin.partition(b"IDAT")[0].partition(b"acTL")[2][:4]
    return begin.startswith(_PNG) and int.from_bytes(frames, "big") > 1


def is_turned(begin: bytes) -> bool:
    """Return whether the first bytes of a file are those of a JPEG file with an EXIF rotation, be it a mirroring."""
    place = 2
    while begin.startswith(b"\xff\xd8") and begin[place : place + 1] == b"\xff" and len(begin) >= place + 4:
        if begin[place + 1] == 0xFF:  # markers may be padded with such bytes
            place += 1
            continue
        length = int.from_bytes(begin[place + 2 : place + 4], "big")
        segment = begin[place + 4 : place + 2 + length]
        if begin[place + 1] == _APP1 and segment.startswith(_EXIF):
            return 2 <= _orientation(segment[len(_EXIF) :]) <= 8
        place += 2 + length
    return False


def _orientation(exif: bytes) -> int:
    """Return the number of the rotation, 1 for none."""
    order = _ORDERS.get(exif[:4])
    if order is None:
        return 1

    def number(place: int, size: int = 2) -> int:
        return int.from_bytes(exif[place : place + size], order)

    first = number(4, 4) + 2
    entries = range(first, min(first + 12 * number(first - 2), len(exif)), 12)
    return next((number(entry + 8) for entry in entries if number(entry) == _ORIENTATION), 1)
