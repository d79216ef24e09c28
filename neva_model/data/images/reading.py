"""Turns an image file into the pixel values that a vision tower takes."""

import struct
import warnings
import zlib
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from PIL import Image

from neva_model.data.images._grey import grey_as_8_bits, require_upper_bytes
from neva_recipes.config import DataError, VisionConfig, pointer_in_place
from neva_recipes.families import vision_family
from neva_recipes.prompts.pictures import FLOATING, FORMATS, MAX_PIXELS, missing_image

__all__ = ["ImageProcessor", "decode_image", "read_image"]

_DECODER_ERRORS = (
    *(OSError, ValueError, SyntaxError, EOFError, TypeError, KeyError, IndexError, AttributeError),
    *(OverflowError, MemoryError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError),
)
"""Exceptions of Pillow for damaged files; they have no common base class."""


def read_image(path: str | Path) -> Image.Image:
    """Return the image of a file in RGB, as LLaVA reads it: alpha is dropped, an EXIF rotation is not applied.

    Grey values of more than 8 bits are scaled, while LLaVA's conversion would clip nearly all of them to white.

    Raises:
        DataError: The file is missing, is not an image, is damaged, or has more than MAX_PIXELS pixels.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return decode_image(Path(path))


def decode_image(path: Path) -> Image.Image:
    """Return what `read_image` returns; Pillow's warnings, of large sizes and broken metadata, are left to the caller.

    Raises:
        DataError: As `read_image` says.
    """
    if problem := missing_image(path):
        raise DataError(problem)
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise DataError(f"image file {path} has {width}x{height} pixels, expected at most {MAX_PIXELS}")
            return _to_rgb(image, path)
    except DataError:
        raise
    except _DECODER_ERRORS as error:
        if problem := pointer_in_place(path):
            raise DataError(f"image file {path} {problem}") from None
        reason = " ".join(f"{error}".split()) or type(error).__name__
        raise DataError(f"image file {path} cannot be decoded: {reason}") from None


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode == "F":
        raise DataError(f"image file {path} {FLOATING}")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return grey_as_8_bits(image, path).convert("RGB")
    if image.format in ("PNG", "TIFF", "PPM"):
        require_upper_bytes(image, path)
    return image.convert("RGB")


class ImageProcessor:
    """Turns RGB images into pixel values with the vision tower's own `transformers` processor.

    Attributes:
        hf: The `transformers` image processor.
        image_size: Side of the square output, in pixels.
    """

    def __init__(self, vision: VisionConfig, image_aspect_ratio: Literal["square", "pad", "crop"]) -> None:
        """Load the processor from `vision.from_pretrained` if it has one, otherwise make the family's usual one.

        Where the family interpolates its positions, a processor of another size is used with the size of the tower.

        Args:
            vision: The vision tower.
            image_aspect_ratio: `square` or `crop` use the processor as it is; `pad` first pads to a square.

        Raises:
            DataError: The processor's configuration cannot be read, or makes images of another size.
        """
        self.image_size = vision.image_size
        self.hf = _load_processor(vision)
        self._pad_color = tuple(int(mean * 255) for mean in self.hf.image_mean) if image_aspect_ratio == "pad" else None
        # No square, which shows whether the processor makes one.
        shape = tuple(self(Image.new("RGB", (16, 8))).shape)
        if shape != (3, self.image_size, self.image_size):
            raise DataError(
                f"the image processor of {vision.from_pretrained} gives {shape[1]}x{shape[2]} pixels, "
                f"but model.vision.image_size={self.image_size}"
            )

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Return the pixel values of an RGB image.

        Returns:
            Normalised pixels. [3, image_size, image_size] float32

        Raises:
            DataError: The image is so narrow that padding or scaling it would take more than MAX_PIXELS pixels.
        """
        short, long = sorted(image.size)
        scaled = self.image_size if self._pad_color else self.image_size * long // short
        if scaled * self.image_size > MAX_PIXELS or (self._pad_color and long * long > MAX_PIXELS):
            raise DataError(f"an image of {image.width}x{image.height} pixels is too narrow to be scaled")
        if self._pad_color:
            image = _expand_to_square(image, self._pad_color)
        pixels: torch.Tensor = self.hf(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels


def _expand_to_square(image: Image.Image, color: tuple[int, ...]) -> Image.Image:
    """Centre an image on a square, as LLaVA's `expand2square` does."""
    side = max(image.size)
    if image.width == image.height:
        return image
    square = Image.new(image.mode, (side, side), color)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def _load_processor(vision: VisionConfig) -> Any:
    family = vision_family(vision)
    processor_class: Any = getattr(transformers, family.image_processor)
    source = vision.source
    if source is not None and _has_processor(source):
        try:
            processor = processor_class.from_pretrained(source, do_pad=False)
            if family.interpolates and processor.crop_size["height"] != vision.image_size:
                processor = processor_class.from_pretrained(source, do_pad=False, **_usual_size(vision))
            return processor
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise DataError(f"the image processor of {source} cannot be loaded: {reason}") from None
    return processor_class(**family.image_settings, **_usual_size(vision))


def _usual_size(vision: VisionConfig) -> dict[str, dict[str, int]]:
    """Return the settings with which an image processor of a tower's family makes images of its size."""
    square = {"height": vision.image_size, "width": vision.image_size}
    if vision_family(vision).crops:
        return {"size": {"shortest_edge": vision.image_size}, "crop_size": square}
    return {"size": square}


def _has_processor(source: str) -> bool:
    path = Path(source)
    if path.exists():
        return any((path / name).is_file() for name in ("preprocessor_config.json", "processor_config.json"))
    return source.count("/") == 1
