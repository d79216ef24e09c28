"""Checks batches of records: what each process does on its own."""

from array import array
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from neva_recipes.config import DataError, PlainTable
from neva_recipes.data_tools._batches import Batch, content_of, records_of
from neva_recipes.data_tools._pictures import Look, look_at
from neva_recipes.data_tools.settings import Counts, Finding, Settings
from neva_recipes.plan.data.prompt_lengths import PromptMaker
from neva_recipes.plan.tokenizers.tokenizer import read_tokenizer
from neva_recipes.prompts.conversation import Conversation, NothingToLearn
from neva_recipes.prompts.encoding import check_template
from neva_recipes.prompts.faults import Fault, faults_of, misspelled
from neva_recipes.prompts.identity import key_of
from neva_recipes.prompts.samples import field_of_image, image_name, names_image, read_sample
from neva_recipes.prompts.templates import get_template

__all__ = ["Checked", "Checking", "shown_id"]

_EMPTY_CELLS = frozenset(("nan", "NaN"))
"""What str and JSON make of the empty cells of pandas."""

_LONGEST = 300
"""Characters of what is said of a finding, and of an id."""


class Checked(NamedTuple):
    """What was found in a batch.

    Attributes:
        findings: What is wrong with samples; lines count from 0 within the batch.
        ids: The key of the id of each sample, 0 without one.
        contents: The key of the content of each sample, 0 if it cannot be read.
        counts: What was counted.
        endings: The right endings of images that lack them: number of the sample, name, ending.
        newlines: How many lines end in the batch; 0 if that is unknown.
    """

    findings: list[Finding]
    ids: "array[int]"
    contents: "array[int]"
    counts: Counts
    endings: list[tuple[int, str, str]]
    newlines: int = 0


class Checking:
    """Checks batches, one after the other."""

    def __init__(self, settings: Settings) -> None:
        """Open what is needed.

        Raises:
            DataError: The tokenizer cannot be read here, or lacks tokens of the template.
        """
        self._template = get_template(settings.template)
        self._settings = settings
        tokenizer = None
        if settings.tokenizer is not None:
            tokenizer = read_tokenizer(settings.tokenizer)
            if tokenizer is None:
                raise DataError(f"tokenizer {settings.tokenizer}: expected tokenizer.json, or a SentencePiece model")
            check_template(self._template, tokenizer)
        self._maker = PromptMaker(self._template, tokenizer, settings.image_tokens, 0)

    def check(self, batch: Batch) -> Checked:
        """Check the records of a batch.

        Raises:
            DataError: The file has changed, or cannot be read.
        """
        found = Checked([], array("Q"), array("Q"), Counts(), [])
        content = content_of(batch)
        for number, (record, line) in enumerate(records_of(batch, content), start=batch.first):
            identity = shown_id(record)
            found.ids.append(key_of(identity) if identity else 0)
            place = len(found.contents)
            for kind, what in self._faults(number, record, found):
                found.findings.append(Finding(kind, number, _printable(what), identity, line))
            if len(found.contents) == place:
                found.contents.append(0)
        return found._replace(newlines=content.count(b"\n"))

    def _faults(self, number: int, record: PlainTable, found: Checked) -> Iterator[Fault]:
        counts = found.counts
        counts.samples += 1
        counts.with_image += names_image(record)
        try:
            conversation = read_sample(record, self._template)
        except DataError as error:
            is_silent = isinstance(error, NothingToLearn)
            yield from [Fault("no-loss", f"{error}")] if is_silent else faults_of(record, self._template)
            yield from misspelled(record)
            yield from self._image_faults(number, _name_of(record), found)
            return
        yield from misspelled(record)
        looked = [*self._image_faults(number, conversation.image, found)]
        yield from looked
        if not names_image(record) and (field := field_of_image(record)) is not None:
            yield Fault("image-not-read", f"{field} holds the name of an image file, and is not read")
        found.contents.append(_content_key(conversation))
        yield from self._of_answers(record, conversation, counts)
        cut = self._of_length(conversation, counts)
        counts.usable += cut is None and all(fault.kind == "image-wrong-ending" for fault in looked)
        if cut is not None:
            yield cut

    def _of_answers(self, record: PlainTable, conversation: Conversation, counts: Counts) -> Iterator[Fault]:
        """Count the turns and words, and yield what is odd about them."""
        answers = [turn.text for turn in conversation.turns[1::2]]
        entries = record.get("conversations") or record["messages"]
        spoken = [entry for entry in entries if str(entry.get("from") or entry.get("role")).lower() != "system"]
        counts.turns[len(spoken)] += 1
        counts.words.update(len(answer.split()) for answer in answers)
        if len(spoken) > len(conversation.turns):
            yield Fault("ends-with-question", f"turn {len(entries)}, the last one, is a question")
        stop = self._template.stop_text
        for place, answer in enumerate(answers, start=1):
            if not answer or answer.isspace():
                yield Fault("answer-empty", f"answer {place} of {len(answers)} has no words")
            elif answer in _EMPTY_CELLS:
                yield Fault("answer-empty-cell", f"answer {place} is {answer}")
            elif stop is not None and stop in answer.strip():
                yield Fault("answer-broken-off", f"answer {place} holds {stop!r}, which ends an answer")

    def _of_length(self, conversation: Conversation, counts: Counts) -> Fault | None:
        """Count the tokens, and return what a cut takes too much of."""
        length = self._settings.sequence_length
        try:
            prompt = self._maker.extent(conversation)
        except DataError as error:
            return Fault("unusable", str(error))
        counts.lengths[prompt.length] += 1
        counts.image_tokens[self._settings.image_tokens if conversation.image is not None else 0] += 1
        counts.cut += prompt.length > length
        at = f"{prompt.length:,} tokens, cut at {length:,}"
        if prompt.is_torn(length):
            return Fault("cut-image", f"{at}: the image does not fit")
        return None if prompt.is_used(length) else Fault("cut-no-loss", f"{at}: no answer is left")

    def _image_faults(self, number: int, name: str | None, found: Checked) -> Iterator[Fault]:
        folder = self._settings.image_folder
        if name is None or folder is None:
            return
        look = _look(str(folder), name, self._settings.decodes)
        yield from look.faults
        if look.ending:
            found.endings.append((number, name, look.ending))


def shown_id(record: PlainTable) -> str:
    """Return the id of a record as text; empty without one."""
    identity = record.get("id")
    return "" if identity is None else _printable(f"{identity}")


@lru_cache(maxsize=4096)
def _look(folder: str, name: str, decodes: bool) -> Look:
    """Look at an image once, where the samples that name it follow each other."""
    return look_at(folder, name, decodes=decodes)


def _name_of(record: PlainTable) -> str | None:
    try:
        return image_name(record)
    except DataError:  # told of already
        return None


def _content_key(conversation: Conversation) -> int:
    """Return the key of all that is learned from: image, system text and turns, without white space around them."""
    texts = (f"{turn.before_image or ''}{turn.text}".strip() for turn in conversation.turns)
    return key_of("\0".join((conversation.image or "", conversation.system or "", *texts)))


def _printable(text: str) -> str:
    """Return a text that any file can hold, shortened."""
    return text[:_LONGEST].encode("utf-8", "backslashreplace").decode()
