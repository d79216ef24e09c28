"""The trees of LLaVA's published data: what is there, what is missing, and where it comes from.

Sources: README.md of github.com/haotian-liu/LLaVA, and the data sets of huggingface.co/liuhaotian.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from neva_recipes.config import DataError, path_is
from neva_recipes.prompts.samples import image_name
from neva_recipes.sources.records import scan_samples

__all__ = ["DataSet", "ImageFolder", "Published", "Standing", "looked_at"]

_HUB = "https://huggingface.co/datasets/liuhaotian"

_OTHER_ENDINGS = (".jpg", ".png", ".gif", ".jpeg", ".webp")

_TOLD = 2000
"""Samples after which it is told how far the work is."""


class Published(NamedTuple):
    """A folder of images of a published data set.

    Attributes:
        folder: Its path below the folder of images.
        origin: Where its images come from.
        how: How they get there.
    """

    folder: str
    origin: str
    how: str


class DataSet(NamedTuple):
    """A published data set.

    Attributes:
        name: Its name.
        stage: The training that it is for.
        folder: Its folder, below that of all data; empty for that itself.
        file: Its data file.
        origin: Where its data file comes from.
        images: The folder of its images, below its own; empty for that itself.
        parts: The folders of images.
    """

    name: str
    stage: str
    folder: str
    file: str
    origin: str
    images: str
    parts: tuple[Published, ...]


_PRETRAIN = DataSet(
    "LLaVA-Pretrain",
    "llava.pretrain",
    "LLaVA-Pretrain",
    "blip_laion_cc_sbu_558k.json",
    f"{_HUB}/LLaVA-Pretrain/resolve/main/blip_laion_cc_sbu_558k.json",
    "images",
    (Published("", f"{_HUB}/LLaVA-Pretrain/resolve/main/images.zip", "unpack it into images"),),
)

_VISUAL_GENOME = "https://cs.stanford.edu/people/rak248/VG_100K_2"

_MIX = DataSet(
    "llava_v1_5_mix665k",
    "llava.finetune",
    "",
    "llava_v1_5_mix665k.json",
    f"{_HUB}/LLaVA-Instruct-150K/resolve/main/llava_v1_5_mix665k.json",
    "",
    (
        Published("coco/train2017", "http://images.cocodataset.org/zips/train2017.zip", "unpack it in coco"),
        Published("gqa/images", "https://downloads.cs.stanford.edu/nlp/data/gqa/images.zip", "unpack it in gqa"),
        Published(
            "ocr_vqa/images",
            "https://drive.google.com/drive/folders/1_GYPY5UkUy7HIcR0zq3ZCFgeZN7BAfm_?usp=sharing",
            "a script downloads them; the data file calls all of them .jpg",
        ),
        Published(
            "textvqa/train_images",
            "https://dl.fbaipublicfiles.com/textvqa/images/train_val_images.zip",
            "unpack it in textvqa",
        ),
        Published("vg/VG_100K", f"{_VISUAL_GENOME}/images.zip", "unpack it in vg"),
        Published("vg/VG_100K_2", f"{_VISUAL_GENOME}/images2.zip", "unpack it in vg"),
    ),
)


@dataclass
class ImageFolder:
    """How a folder of images stands.

    Attributes:
        published: What it should be.
        path: Where it should be.
        is_there: Whether it is there.
        files: The files in it and below it, if nothing says what should be there; else `None`.
        named: The images in it that the data file names, if it is here.
        missing: Those of them that are not there.
        first_missing: The first of these; empty if none is missing.
        otherwise: Those that are missing, and there under another ending.
    """

    published: Published
    path: Path
    is_there: bool
    files: int | None = None
    named: int = 0
    missing: int = 0
    first_missing: str = ""
    otherwise: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether it has all that the data file names; without one, whether it is there."""
        return not self.missing and (self.is_there or self.files is None)


@dataclass
class Standing:
    """How a data set stands.

    Attributes:
        published: What it should be.
        file: Where its data file should be.
        samples: Samples of the data file; `None` if it is not there.
        folders: Its folders of images.
        elsewhere: Images that the data file names and that are in none of these folders by their names.
    """

    published: DataSet
    file: Path
    samples: int | None
    folders: list[ImageFolder]
    elsewhere: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing."""
        return self.samples is not None and not self.elsewhere and all(one.is_complete for one in self.folders)


def looked_at(folder: Path, tell: Callable[[int], None]) -> Iterator[Standing]:
    """Yield how each published data set stands in a folder.

    Args:
        folder: The folder of all data, LLaVA's `playground/data`; the folder of `LLaVA-Pretrain` may be named itself.
        tell: Called again and again with the number of samples that were looked at.

    Raises:
        DataError: A data file cannot be read.
    """
    for published in (_PRETRAIN, _MIX):
        home = folder / published.folder
        if published.folder and not path_is(home) and path_is(folder / published.file):
            home = folder
        parts = [_image_folder(one, home / published.images / one.folder) for one in published.parts]
        standing = Standing(published, home / published.file, None, parts)
        if path_is(standing.file, Path.is_file):
            _compare(standing, home / published.images, tell)
        else:
            for part in parts:
                part.files = _files_in(part.path) if part.is_there else 0
        yield standing


def _image_folder(published: Published, path: Path) -> ImageFolder:
    return ImageFolder(published, path, path_is(path, Path.is_dir))


def _compare(standing: Standing, images: Path, tell: Callable[[int], None]) -> None:
    """Look for every image that a data file names, once."""
    seen = set[str]()
    standing.samples = 0
    for *_, record in scan_samples(standing.file):
        standing.samples += 1
        if standing.samples % _TOLD == 0:
            tell(standing.samples)
        try:
            name = image_name(record)
        except DataError:  # nemo-run data check tells of it
            continue
        if name is None or name in seen:
            continue
        seen.add(name)
        part = next((one for one in standing.folders if _is_in(name, one.published.folder)), None)
        if part is None:
            standing.elsewhere += 1
            continue
        part.named += 1
        if part.is_there and path_is(images / name, Path.is_file):
            continue
        part.missing += 1
        part.first_missing = part.first_missing or name
        part.otherwise += part.is_there and _has_other_ending(images / name)


def _is_in(name: str, folder: str) -> bool:
    return not folder or name.startswith(f"{folder}/")


def _has_other_ending(path: Path) -> bool:
    return any(path_is(path.with_suffix(ending), Path.is_file) for ending in _OTHER_ENDINGS)


def _files_in(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))
