"""The rules for image files: their place, format, and number of pixels."""

import warnings
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from neva_recipes.config import how_many
from neva_recipes.prompts._picture_headers import BEGIN, header_size, image_format, is_animated, is_turned

__all__ = [
    "BEGIN",
    "FLOATING",
    "FORMATS",
    "MAX_PIXELS",
    "Look",
    "can_be_too_large",
    "header_problem",
    "image_format",
    "is_turned",
    "look_into",
    "looks_texts",
    "missing_image",
]

MAX_PIXELS = 89_478_485
"""Largest image that is decoded or made on the way: a quarter of a GiB in RGB, Pillow's own warning limit."""

_JPEG_ENDINGS = (".jpg", ".jpeg")

_FEWEST_JPEG_BYTES = MAX_PIXELS // 64 // 8
"""JPEG takes at least one bit for each block of 8 x 8 pixels. In other formats, a simple drawing may have any number
of pixels in a few hundred bytes."""

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Only pixel formats; for others Pillow would start a PostScript interpreter."""

FLOATING = "has floating-point pixels, which have no fixed range"
"""Why an image of Pillow's mode F cannot be used."""


def missing_image(path: Path, folder: str | None = None) -> str | None:
    """Return why an image file is missing, as text; `None` if it exists.

    Args:
        path: The file.
        folder: The setting that names the folder of its name, for the message; `None` leaves it out.
    """
    try:
        if path.is_file():
            return None
        problem = "is a folder" if path.is_dir() else "does not exist"
    except (OSError, ValueError) as error:  # a name too long, or a folder without search permission
        reason = error.strerror if isinstance(error, OSError) else error
        return f"image file {str(path)[:1000]} cannot be looked up: {reason}"
    hint = "" if folder is None else f" (image names are relative to {folder})"
    return f"image file {str(path)[:1000]} {problem}{hint}"


def can_be_too_large(path: Path | str, size: int) -> bool:
    """Return whether a file of `size` bytes may have too many pixels; a JPEG file is recognised by its ending."""
    return size >= _FEWEST_JPEG_BYTES or not _is_jpeg(path)


def _is_jpeg(path: Path | str) -> bool:
    return str(path).lower().endswith(_JPEG_ENDINGS)


class Look(NamedTuple):
    """What the header of an image file shows.

    Attributes:
        problem: Why it cannot be used: too many pixels, or of no fixed range; `None` if it can, or if the header cannot
            be read.
        is_read: Whether the file was opened.
        is_turned: Whether it is known to have an EXIF rotation.
        has_several: Whether it is known to have several pages or frames.
    """

    problem: str | None
    is_read: bool = False
    is_turned: bool = False
    has_several: bool = False


def header_problem(path: Path) -> str | None:
    """Return why an image cannot be used, by its header; `None` if it can, or if the header cannot be read."""
    return look_into(path, opens_small=False).problem


def look_into(path: Path, *, opens_small: bool = True) -> Look:
    """Return what the header of an image file shows.

    Args:
        path: The file.
        opens_small: Whether to open JPEG files that are too small to have too many pixels, and can only be turned.
    """
    try:
        is_small = not can_be_too_large(path, path.stat().st_size)
        if is_small and not opens_small:
            return Look(None)
        with path.open("rb") as file:
            turned = is_turned(file)
            if is_small:
                return Look(None, is_read=True, is_turned=turned)
            file.seek(0)
            several = is_animated(file)
            file.seek(0)
            size = header_size(file)
    except (OSError, ValueError):
        return Look(None)
    if size is None:
        return _look_by_pillow(path, turned=turned)
    return Look(_too_many(*size), is_read=True, is_turned=turned, has_several=several)


def _look_by_pillow(path: Path, *, turned: bool) -> Look:
    image_module = _pillow()
    try:
        with image_module.open(path, formats=FORMATS) as image:
            problem = FLOATING if image.mode == "F" else _too_many(*image.size)
            # Behind the picture of a camera's MPO file are smaller ones of the same.
            several = image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except image_module.DecompressionBombError:
        problem, several = f"has more than {2 * MAX_PIXELS} pixels, expected at most {MAX_PIXELS}", False
    except (OSError, ValueError, SyntaxError, EOFError, TypeError, KeyError, IndexError, AttributeError, OverflowError):
        problem, several = None, False  # decoding gives a better message for a damaged header
    return Look(problem, is_read=True, is_turned=turned, has_several=several)


@cache
def _pillow() -> Any:
    """Import Pillow, which takes a tenth of a dry run, only for an image that nothing else can read."""
    from PIL import Image

    # Pillow warns of the same, and of broken metadata, which does not matter. The filter stays for good, since a
    # temporary one would affect the other threads too.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    return Image


def _too_many(width: int, height: int) -> str | None:
    is_too_large = width * height > MAX_PIXELS
    return f"has {width}x{height} pixels, expected at most {MAX_PIXELS}" if is_too_large else None


def looks_texts(turned: int, several: int, looked_at: int) -> dict[str, str]:
    """Return what is said of images that are not used as their files show them, by `turned` and `several`.

    Args:
        turned: How many of the images looked at have an EXIF rotation.
        several: How many of them have several pages or frames.
        looked_at: How many images were looked at.
    """
    found = {}
    if turned:
        found["turned"] = (
            f"{_how_many_have(turned, looked_at)} an EXIF rotation, which is not applied: rotate the files if they "
            "look turned (mogrify -auto-orient FILES with ImageMagick, or exiftran -ai FILES)"
        )
    if several:
        found["several"] = (
            f"{_how_many_have(several, looked_at)} several pages or frames, of which the first is used: write those "
            "that matter to files of their own"
        )
    return found


def _how_many_have(some: int, looked_at: int) -> str:
    return f"{some:,} of {how_many(looked_at, 'image')} looked at {'has' if some == 1 else 'have'}"
