"""Looks into image files: into their first and last bytes, and as a whole where that is asked for."""

import mmap
import os
import stat
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from neva_recipes.config import is_pointer
from neva_recipes.prompts.faults import Fault
from neva_recipes.prompts.pictures import BEGIN, FORMATS, can_be_too_large, header_problem, image_format

__all__ = ["ENDINGS", "Look", "look_at"]

ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "AVIF": (".avif", ".avifs", ".heif"),
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx", ".j2c"),
}
"""The endings of each format, first the one that a copy gets."""

_LIKELY = (".jpg", ".png", ".gif", ".jpeg", ".webp", ".JPG", ".PNG")
"""Endings under which an image is looked for that is missing."""

_TAIL = 64
"""Bytes at the end of a file in which its last mark is looked for."""

_ENDS = {"PNG": b"IEND", "JPEG": b"\xff\xd9"}
"""What stands at the end of whole files of a format; other data may follow it."""

_NO_NAMES = ("data:", "http://", "https://", "s3://", "gs://", "file://")


class Look(NamedTuple):
    """What was seen of an image.

    Attributes:
        faults: What is wrong with it.
        ending: The ending that its content has, or under which it is there; empty if its name is right.
    """

    faults: tuple[Fault, ...] = ()
    ending: str = ""


def look_at(folder: str, name: str, *, decodes: bool) -> Look:
    """Return what is wrong with an image.

    Args:
        folder: Folder that its name is relative to.
        name: Its name.
        decodes: Whether to decode it whole.
    """
    if name.startswith(_NO_NAMES):
        return _fault("image-not-a-file-name", f"image is {name[:60]!r}")
    path = os.path.join(folder, name)  # noqa: PTH118 a Path takes as long as the stat itself
    try:
        status = os.stat(path)  # noqa: PTH116 asked for every image
    except (FileNotFoundError, NotADirectoryError):
        return _missing(path, name)
    except (OSError, ValueError) as error:
        return _fault("image-unreadable", f"{name[:200]}: cannot be looked up: {getattr(error, 'strerror', error)}")
    if stat.S_ISDIR(status.st_mode):
        return _fault("image-is-folder", f"{name} is a folder")
    if not status.st_size:
        return _fault("image-empty", f"{name} is empty")
    try:
        return _look_into(path, name, status.st_size, decodes=decodes)
    except OSError as error:
        return _fault("image-unreadable", f"{name} cannot be read: {error.strerror}")


def _fault(kind: str, what: str) -> Look:
    return Look((Fault(kind, what),))


def _missing(path: str, name: str) -> Look:
    stem, ending = os.path.splitext(path)  # noqa: PTH122
    for other in _LIKELY:
        if other != ending and os.path.isfile(stem + other):  # noqa: PTH113
            what = f"{name} is not there, but {PurePosixPath(stem + other).name} is"
            return Look((Fault("image-other-ending", what),), other)
    return _fault("image-missing", f"{name[:200]} is not there")


def _look_into(path: str, name: str, size: int, *, decodes: bool) -> Look:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        begin = file.read(BEGIN)
        kind = image_format(begin)
        if kind is None:
            reason = "is a Git LFS pointer: git lfs pull fetches it" if is_pointer(begin) else "is no known image"
            return _fault("image-unreadable", f"{name} {reason}")
        if not decodes and _is_cut_off(file.fileno(), kind, size):
            return _fault("image-truncated", f"{name} ends too early, after {size:,} bytes")
    if can_be_too_large(name, size) and (problem := header_problem(Path(path))) is not None:
        return _fault("image-too-large", f"{name} {problem}")
    if decodes and (found := _decoded(path, name)) is not None:
        return Look((found,))
    ending = os.path.splitext(name)[1].lower()  # noqa: PTH122
    if ending in ENDINGS[kind] or not any(ending in endings for endings in ENDINGS.values()):
        return Look()
    return Look((Fault("image-wrong-ending", f"{name} is {kind}"),), ENDINGS[kind][0])


def _is_cut_off(descriptor: int, kind: str, size: int) -> bool:
    """Return whether a file lacks its end, as far as its format tells without decoding."""
    mark = _ENDS.get(kind)
    if kind == "WEBP":
        return int.from_bytes(os.pread(descriptor, 4, 4), "little") + 8 > size
    if mark is None or mark in os.pread(descriptor, _TAIL, max(0, size - _TAIL)):
        return False
    with mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) as data:
        # Within the pixels of a JPEG no such mark stands, in a small picture before them one may.
        return data.rfind(mark) < (data.rfind(b"\xff\xda") if kind == "JPEG" else 0)


def _decoded(path: str, name: str) -> Fault | None:
    """Return why an image cannot be decoded; `None` if it can."""
    import struct
    import warnings
    import zlib

    from PIL import Image

    errors = (
        *(OSError, ValueError, SyntaxError, EOFError, TypeError, KeyError, IndexError, AttributeError),
        *(OverflowError, MemoryError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError),
    )  # those of Pillow have no common base class
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path, formats=FORMATS) as image:
                image.convert("RGB")
        except errors as error:
            reason = " ".join(f"{error}".split())[:120] or type(error).__name__
            is_cut = "truncated" in reason or "broken data stream" in reason
            kind = "image-truncated" if is_cut else "image-damaged"
            return Fault(kind, f"{name} cannot be decoded: {reason}")
    return None
