"""Size, EXIF rotation and frames of PNG and JPEG files, the formats of nearly all images, from their headers.

Pillow reads them too, but its import takes a tenth of a dry run, and it takes several times as long to open a file.
"""

import os
import re
from collections.abc import Iterator
from typing import BinaryIO, Literal

__all__ = ["BEGIN", "header_size", "image_format", "is_animated", "is_turned"]

BEGIN = 4096
"""Bytes of the beginning of a file that show its format, and hold the whole header of most."""

_PNG = b"\x89PNG\r\n\x1a\n"

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG markers before the size of a frame. Source: ITU-T T.81, table B.1."""

_ALONE = frozenset((0x01, *range(0xD0, 0xDB)))
"""Markers without a segment length, and the marker of the pixels, which ends the header."""

_APP1, _EXIF = 0xE1, b"Exif\0\0"
_ORIENTATION = 0x0112
"""Segment, its name, and tag of the rotation. Source: CIPA DC-008 (Exif 2.32), sections 4.5.4 and 4.6.4."""

_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}


_FORMAT = re.compile(
    rb"(?P<JPEG>\xff\xd8\xff)|(?P<PNG>\x89PNG)|(?P<GIF>GIF8)|(?P<BMP>BM)|(?P<WEBP>RIFF....WEBP)"
    rb"|(?P<TIFF>II[*+]\0|MM\0[*+]|II\0\*|MM\*\0)|(?P<PPM>P[0-7Ffy])|(?P<AVIF>....ftyp(avi[fs]|mif1|msf1))"
    rb"|(?P<JPEG2000>\0\0\0\x0cjP  |\xff\x4f\xff\x51)",
    re.DOTALL,
)
"""First bytes of the formats that training reads."""


def image_format(begin: bytes) -> str | None:
    """Return the format of an image, as Pillow calls it, by its first bytes; `None` if training reads no such."""
    found = _FORMAT.match(begin)
    return None if found is None else next(name for name, part in found.groupdict().items() if part is not None)


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
    for marker, _ in _segments(file):
        if marker in _FRAMES and len(frame := file.read(5)) == 5:
            return int.from_bytes(frame[3:5], "big"), int.from_bytes(frame[1:3], "big")
    return None


def _segments(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Yield the marker and the end of each segment of a JPEG file before its pixels; the file is at the content."""
    place = 2
    file.seek(place)
    while len(head := file.read(4)) == 4 and head[0] == 0xFF:
        if head[1] == 0xFF:  # markers may be padded with such bytes
            place += 1
        elif head[1] in _ALONE or (length := int.from_bytes(head[2:], "big")) < 2:
            return
        else:
            place += 2 + length
            yield head[1], place
        file.seek(place)


def is_animated(file: BinaryIO) -> bool:
    """Return whether a file is a PNG file with several frames.

    Their number stands before the first one. Source: W3C's PNG specification, third edition, section 11.3.4.1.

    Args:
        file: The file, at its beginning.
    """
    if file.read(len(_PNG)) != _PNG:
        return False
    while len(head := file.read(8)) == 8 and head[4:] != b"IDAT":
        if head[4:] == b"acTL":
            return int.from_bytes(file.read(4), "big") > 1
        file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
    return False


def is_turned(file: BinaryIO) -> bool:
    """Return whether a file is a JPEG file with an EXIF rotation, be it a mirroring.

    Args:
        file: The file, at its beginning.
    """
    if file.read(2) != b"\xff\xd8":
        return False
    for marker, end in _segments(file):
        if marker == _APP1 and file.read(len(_EXIF)) == _EXIF:
            return 2 <= _orientation(file, end) <= 8
    return False


def _orientation(file: BinaryIO, end: int) -> int:
    """Return the number of the rotation, 1 for none.

    Args:
        file: The file, at the begin of the content of an EXIF segment.
        end: Where the segment ends.
    """
    begin = file.tell()
    head = file.read(8)
    order = _ORDERS.get(head[:4])
    if order is None:
        return 1
    # Only the table of tags is read, since a segment may hold a small picture too.
    first = begin + int.from_bytes(head[4:], order)
    file.seek(first)
    count = int.from_bytes(file.read(2), order)
    table = file.read(max(0, min(12 * count, end - first - 2)))
    entries = (table[place : place + 12] for place in range(0, len(table), 12))
    values = (
        int.from_bytes(entry[8:10], order) for entry in entries if int.from_bytes(entry[:2], order) == _ORIENTATION
    )
    return next(values, 1)
