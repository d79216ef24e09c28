"""What `nemo-run data check` is asked to do, and what it counts."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from neva_recipes.config import ConvTemplate

__all__ = ["Counts", "Finding", "Settings"]


@dataclass(frozen=True)
class Settings:
    """How files are checked.

    Attributes:
        template: The template of the prompts.
        sequence_length: The length at which prompts are cut.
        image_tokens: Positions that an image takes.
        tokenizer: A tokenizer on the disk; `None` estimates the tokens.
        image_folder: Folder that image names are relative to; `None` looks at no image.
        decodes: Whether every image is decoded.
    """

    template: ConvTemplate
    sequence_length: int
    image_tokens: int
    tokenizer: Path | None = None
    image_folder: Path | None = None
    decodes: bool = False


class Finding(NamedTuple):
    """Something that is wrong with a sample.

    Attributes:
        kind: The name of its kind.
        number: The number of the sample in its file, from 0.
        what: What is wrong.
        id: The sample's id; empty without one.
        line: The line of the file in which the sample begins, from 1; `None` if unknown.
    """

    kind: str
    number: int
    what: str
    id: str = ""
    line: int | None = None


@dataclass
class Counts:
    """What is counted in samples.

    Attributes:
        samples: All samples.
        usable: Those that training can use, as far as was looked.
        with_image: Those that name an image.
        cut: Usable ones that are longer than the sequence length.
        lengths: How many prompts have each length in tokens, image included.
        image_tokens: How many usable samples have each number of image tokens.
        turns: How many conversations have each number of turns.
        words: How many answers have each number of words.
    """

    samples: int = 0
    usable: int = 0
    with_image: int = 0
    cut: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    image_tokens: Counter[int] = field(default_factory=Counter)
    turns: Counter[int] = field(default_factory=Counter)
    words: Counter[int] = field(default_factory=Counter)

    def add(self, other: "Counts") -> None:
        """Add what was counted in other samples."""
        self.samples += other.samples
        self.usable += other.usable
        self.with_image += other.with_image
        self.cut += other.cut
        self.lengths.update(other.lengths)
        self.image_tokens.update(other.image_tokens)
        self.turns.update(other.turns)
        self.words.update(other.words)
