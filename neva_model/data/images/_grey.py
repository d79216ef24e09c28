"""Converts grey values of more than eight bits to eight bits, by what the file declares or by its values."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["grey_as_8_bits", "require_upper_bytes"]

_DEPTHS = (8, 10, 12, 14, 16)
"""Bit depths of values in a 16-bit container; cameras and scanners use all of them."""

_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_LARGEST = 258, 262, (341, 281)
"""Tags of TIFF 6.0: BitsPerSample; PhotometricInterpretation; SMaxSampleValue and MaxSampleValue."""

_WHITE_IS_ZERO = 0
"""A PhotometricInterpretation that Pillow only handles up to 8 bits."""

_FIRST_CHUNKS = 64
"""Number of chunks of a PNG file searched for sBIT, which comes before the pixels."""


def grey_as_8_bits(image: Image.Image, path: Path) -> Image.Image:
    """Return a grey image of 16 or 32 bits in 8 bits.

    The file declares the largest possible value: PNG by sBIT, TIFF by SMaxSampleValue, MaxSampleValue or a
    BitsPerSample that is not a multiple of 8, PPM by a largest value below 65535, JPEG 2000 always. If it declares
    nothing, or has larger values, the depth is the smallest of 8, 10, 12, 14 and 16 bits that holds the image's largest
    value. A dark image can then become too bright: its largest value becomes at least 64.

    Args:
        image: An image of mode I or I;16, opened from `path`.
        path: Its file.

    Raises:
        ValueError: Values are negative or have more than 16 bits.
    """
    is_scaled = image.format == "JPEG2000" or (image.format == "PPM" and _ppm_largest(image) < 65535)
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("grey values are outside of 16 bits")
    largest = 65535 if is_scaled else _declared(image, path, values)
    if largest is None or values.max() > largest:
        largest = 2 ** next(bits for bits in _DEPTHS if values.max() < 2**bits) - 1
    bits = largest.bit_length()
    is_whole = largest == 2**bits - 1 and bits >= 8
    scaled = values >> (bits - 8) if is_whole else values * 255 // largest
    if _WHITE_IS_ZERO in _tag(image, _TIFF_PHOTOMETRIC):
        scaled = 255 - scaled
    return Image.fromarray(scaled.astype(np.uint8))


def require_upper_bytes(image: Image.Image, path: Path) -> None:
    """Check that the upper bytes hold the picture, since Pillow keeps only these of 16-bit colours.

    Raises:
        ValueError: The values seem to have 14 bits or less, and the file does not declare otherwise.
    """
    header = _png_chunks(path).get(b"IHDR", b"") if image.format == "PNG" else b""
    if image.format == "PPM":
        bits = _ppm_largest(image).bit_length()
    else:
        bits = header[8] if len(header) > 8 else max(_tag(image, _TIFF_BITS), default=8)
    if bits != 16 or image.mode not in ("RGB", "RGBA", "LA"):
        return
    declared = max(_png_chunks(path).get(b"sBIT", b"\0")) if header else 0
    upper = int(np.asarray(image.convert("RGB")).max())
    if upper < 64 and declared != 16:
        raise ValueError("its colours have 16 bits and use 14 of them at most: convert it to 8 bits a colour")


def _declared(image: Image.Image, path: Path, values: NDArray[np.int64]) -> int | None:
    """Return the largest value that a file declares; `None` if it declares nothing."""
    if image.format == "PNG":
        significant = _png_chunks(path).get(b"sBIT", b"")
        bits = significant[0] if significant else 0
        if not 0 < bits <= 16:
            return None
        # By the standard, samples are shifted up to the width of the container; many writers do not shift them.
        is_shifted = values.max() >= 2**bits or not (values & (2 ** (16 - bits) - 1)).any()
        return 65535 if is_shifted else 2**bits - 1
    if image.format == "TIFF":
        for tag in _TIFF_LARGEST:
            if 0 < (largest := max(_tag(image, tag), default=0)) <= 65535:
                return largest
        bits = max(_tag(image, _TIFF_BITS), default=16)
        return 2**bits - 1 if bits % 8 else None
    return None


def _ppm_largest(image: Image.Image) -> int:
    """Return the largest value that a PPM file declares, before decoding; Pillow scales values if it is below 65535."""
    arguments: Any = image.tile[0].args  # type: ignore[attr-defined]
    if isinstance(arguments, tuple):
        return int(arguments[1])
    return 65535 if arguments == "I;16B" else 255


def _tag(image: Image.Image, tag: int) -> tuple[int, ...]:
    found = getattr(image, "tag_v2", {}).get(tag, ())
    found = found if isinstance(found, tuple) else (found,)
    return tuple(int(value) for value in found)


def _png_chunks(path: Path) -> dict[bytes, bytes]:
    """Return the short chunks of a PNG file before its pixels."""
    chunks: dict[bytes, bytes] = {}
    with path.open("rb") as file:
        file.seek(8)
        for _ in range(_FIRST_CHUNKS):
            header = file.read(8)
            length, kind = int.from_bytes(header[:4]), header[4:]
            if len(kind) < 4 or kind == b"IDAT":
                break
            chunks[kind] = file.read(min(length, 16))
            file.seek(length - len(chunks[kind]) + 4, 1)
    return chunks
