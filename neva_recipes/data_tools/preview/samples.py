"""The first samples of a data file as a model sees them, by the encoding that training uses."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from neva_recipes.config import ConvTemplate, DataError, PlainTable
from neva_recipes.data_tools.preview._spelling import speller
from neva_recipes.plan.tokenizers.tokenizer import LocalTokenizer
from neva_recipes.prompts.encoding import IMAGE_TOKEN_INDEX, check_template, encode_pieces
from neva_recipes.prompts.extent import extent_of
from neva_recipes.prompts.missing_pictures import missing_named_image
from neva_recipes.prompts.samples import read_sample
from neva_recipes.prompts.templates import get_template
from neva_recipes.sources.records import scan_samples

__all__ = ["Seen", "Unit", "seen_samples"]


class Unit(NamedTuple):
    """Tokens that make whole characters together: usually one.

    Attributes:
        ids: Their ids; IMAGE_TOKEN_INDEX at the positions of an image.
        text: What they stand for.
        is_learnt: Whether the model learns to write them.
    """

    ids: tuple[int, ...]
    text: str
    is_learnt: bool


class Seen(NamedTuple):
    """A sample as a model sees it.

    Attributes:
        number: Its number in the file, from 0.
        id: Its id; empty without one.
        units: Its tokens; none if training cannot use it.
        cut: Tokens that a cut takes from it.
        image: Its image file; `None` without one, or without a folder of images.
        problem: Why training cannot use it; empty if it can.
    """

    number: int
    id: str
    units: Sequence[Unit]
    cut: int
    image: Path | None
    problem: str

    @property
    def title(self) -> str:
        """What it is, in a line."""
        named = f"sample {self.number}{f' (id {self.id})' if self.id else ''}"
        if self.problem:
            return f"{named} is not used: {self.problem}"
        total = sum(len(unit.ids) for unit in self.units)
        learnt = sum(len(unit.ids) for unit in self.units if unit.is_learnt)
        cut = f", {self.cut:,} more cut off" if self.cut else ""
        return f"{named}: {total:,} tokens, {learnt:,} with loss{cut}"


class _Seeing:
    """Shows samples as a model with a tokenizer sees them."""

    def __init__(
        self, tokenizer: LocalTokenizer, template: ConvTemplate, tokens_per_image: int, sequence_length: int
    ) -> None:
        self._tokenizer, self._template = tokenizer, get_template(template)
        self._tokens_per_image, self._sequence_length = tokens_per_image, sequence_length
        check_template(self._template, tokenizer)
        self._spelt = speller(tokenizer)

    def see(self, number: int, record: PlainTable, folder: Path | None) -> Seen:
        """Return a sample."""
        identity = "" if record.get("id") is None else f"{record['id']}"[:200]
        try:
            turns, system, name = read_sample(record, self._template)
            pieces = self._template.pieces(turns, system)
            tokens, learnt = encode_pieces(pieces, self._template, self._tokenizer, self._tokens_per_image)
            extent_of(tokens, learnt).require_rest(self._sequence_length)
            if name is not None and folder is not None:
                problem = missing_named_image(folder, name, "--image-folder")
                if problem is not None:
                    raise DataError(problem)
        except DataError as error:
            return Seen(number, identity, (), 0, None, f"{error}")
        seen = tokens[: self._sequence_length]
        # Nothing predicts the very first token.
        units = tuple(self._units(seen, [False, *learnt[1:]]))
        image = None if name is None or folder is None else folder / name
        return Seen(number, identity, units, len(tokens) - len(seen), image, "")

    def _units(self, tokens: Sequence[int], learnt: Sequence[bool]) -> Iterator[Unit]:
        ids, data = list[int](), b""
        for place, token in enumerate(tokens):
            is_image = token == IMAGE_TOKEN_INDEX
            ids.append(token)
            data += b"" if is_image else self._spelt(token)
            ends = place + 1 == len(tokens) or learnt[place + 1] != learnt[place]
            next_is_image = not ends and tokens[place + 1] == IMAGE_TOKEN_INDEX
            if not ends and is_image == next_is_image and (is_image or not _is_whole(data)):
                continue
            text = f"<image: {len(ids)} tokens>" if is_image else data.decode("utf-8", "replace")
            yield Unit(tuple(ids), text, learnt[place])
            ids, data = [], b""


def _is_whole(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def seen_samples(
    path: Path,
    count: int,
    *,
    tokenizer: LocalTokenizer,
    template: ConvTemplate,
    tokens_per_image: int,
    sequence_length: int,
    image_folder: Path | None = None,
) -> list[Seen]:
    """Return the first samples of a data file.

    Args:
        path: A JSON array, or JSON lines.
        count: How many samples.
        tokenizer: The model's tokenizer.
        template: The template of the prompts.
        tokens_per_image: Positions that an image takes.
        sequence_length: The length at which prompts are cut.
        image_folder: Folder that image names are relative to; `None` looks for no image.

    Raises:
        DataError: The file cannot be read, has no samples, or the tokenizer lacks tokens of the template.
    """
    seeing = _Seeing(tokenizer, template, tokens_per_image, sequence_length)
    records = enumerate(record for *_, record in islice(scan_samples(path), count))
    found = [seeing.see(number, record, image_folder) for number, record in records]
    if not found:
        raise DataError(f"{path}: has no samples")
    return found
