"""What a conversation template is: the text around the turns, and which of it carries loss.

A template is data: tuples of text, special tokens and slots. Training and inference build their prompts piece by piece
from the same tuples, so it is known from the start what carries loss, without searching for it.
"""

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from neva_recipes.config import ConvTemplate, DataError
from neva_recipes.prompts.conversation import Conversation, Turn

__all__ = ["Part", "Piece", "Slot", "Special", "Template"]


@dataclass(frozen=True)
class Special:
    """A special token of the vocabulary, by its name there."""

    token: str


class Slot(enum.Enum):
    """A place to be filled in."""

    BEGIN = "begin"
    """The tokenizer's own token for the begin of a sequence, if it has one."""
    START = "start"
    """No token: what follows is encoded like the start of a text, with SentencePiece's leading space, because the
    original encodes it apart from what stands before it."""
    IMAGE = "image"
    """The positions of an image."""
    SYSTEM = "system"
    """The system text: the record's own, else the template's."""
    LABEL = "label"
    """The attributes of the answer that follows: the record's own, else the template's."""
    MESSAGE = "message"
    """The words of a turn."""


Part = str | Special | Slot
"""An element of a template."""


@dataclass(frozen=True)
class Piece:
    """A part of a prompt with every message filled in.

    Attributes:
        part: Text, a special token, Slot.BEGIN, Slot.START, or Slot.IMAGE.
        carries_loss: Whether the model learns to write this part.
    """

    part: Part
    carries_loss: bool


@dataclass(frozen=True)
class Template:
    """How a conversation becomes a prompt.

    Attributes:
        name: Its name in a recipe.
        origin: Whose template it is, and its name there.
        opening: The beginning of the prompt with the first question, up to where the answer begins.
        asking: Every later question, up to where the answer begins; `None` if there is only one exchange.
        answer: An answer with everything that carries loss.
        stop: The special token that ends an answer, if there is one.
        stop_text: The text that ends an answer, if there is no such token.
        system: The system text if a record has none; `None` if there is no system text then.
        given_opening: The opening if a record has a system text of its own; `None` if it is `opening`, or if the
            template has no place for a system text.
        label: The attributes of an answer if a record gives none; `None` if the template has no place for them.
        image_parts_text: Whether the text after an image is encoded like the start of a text, which matters for
            SentencePiece's leading space (LLaVA cuts the prompt at images and encodes the parts separately).
        image_is_token: Whether the image is a special token in the text that the original encodes, behind which a
            tokenizer adds a leading space if it adds one behind every special token.
        marks_image: Whether the tokens of `use_im_start_end` surround the image; LLaVA's plain drops them.
        is_verbatim: Whether a record's text is kept as it is, as in NeMo: the image stays in its place, and nothing is
            stripped. Otherwise, as in LLaVA, the image moves to the front of its turn.
        keeps_empty_system: Whether an empty system text of a record counts, as in NeMo; otherwise it counts as none.
        is_one_text: Whether the prompt is a single text for SentencePiece, as in NeMo, so that SentencePiece's own
            space comes before the special token at the beginning.
    """

    name: ConvTemplate
    origin: str
    opening: tuple[Part, ...]
    asking: tuple[Part, ...] | None
    answer: tuple[Part, ...]
    stop: Special | None
    stop_text: str | None = None
    system: str | None = None
    given_opening: tuple[Part, ...] | None = None
    label: str | None = None
    image_parts_text: bool = True
    image_is_token: bool = False
    marks_image: bool = True
    is_verbatim: bool = False
    keeps_empty_system: bool = False
    is_one_text: bool = False

    @property
    def first_question(self) -> tuple[Part, ...]:
        """The beginning of the prompt with the template's own system text."""
        return self._with_own_texts(self.opening)

    @property
    def question(self) -> tuple[Part, ...] | None:
        """Every later question with the template's own texts; `None` if there is only one exchange."""
        return None if self.asking is None else self._with_own_texts(self.asking)

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Names of the special tokens that a tokenizer must have."""
        parts = (*self.opening, *(self.given_opening or ()), *(self.asking or ()), *self.answer)
        return tuple(dict.fromkeys(part.token for part in parts if isinstance(part, Special)))

    @property
    def takes_system(self) -> bool:
        """Whether there is a place for a record's own system text."""
        return self.system is not None or self.given_opening is not None

    def opening_for(self, system: str | None) -> tuple[Part, ...]:
        """Return the opening for a record's own system text; `None` means that it has none."""
        return self.opening if system is None or self.given_opening is None else self.given_opening

    def check(self, conversation: Conversation) -> None:
        """Check that the template can hold a conversation.

        Raises:
            DataError: The template takes one exchange about an image and the conversation is different, or it has no
                place for the attributes of an answer.
        """
        turns = conversation.turns
        if self.asking is None and (len(turns) > 2 or not turns[0].image):
            raise DataError(
                f"data.conv_template={self.name} takes one question with <image> and one answer, "
                f"got {len(turns)} turns{'' if turns[0].image else ' and no image'}"
            )
        if self.label is None and any(turn.label for turn in turns):
            raise DataError(f"an answer has label, but data.conv_template={self.name} has no place for it")

    def pieces(self, turns: Sequence[Turn], system: str | None = None) -> list[Piece]:
        """Return the prompt of a conversation.

        An answer without words carries no loss; other answers are not affected.

        Args:
            turns: Question, answer, question, ...; if a question comes last, the prompt stops where its answer
                begins.
            system: The system text; `None` means the template's.

        Raises:
            DataError: The template cannot hold the conversation.
        """
        self.check(Conversation(turns))
        pieces: list[Piece] = []
        for number, turn in enumerate(turns):
            if turn.role == "gpt":
                parts, carries_loss = self.answer, bool(turn.text.strip())
            else:
                parts, carries_loss = self.opening_for(system) if number == 0 else self.asking or (), False
            texts = self._texts(system, turn.label)
            pieces += [Piece(part, carries_loss) for part in _filled(parts, turn, texts)]
        return _joined(pieces)

    def _texts(self, system: str | None = None, label: str | None = None) -> dict[Part, str]:
        """Return the texts for the slots that a record may fill."""
        return {
            Slot.SYSTEM: (self.system if system is None else system) or "",
            Slot.LABEL: (self.label if label is None else label) or "",
        }

    def _with_own_texts(self, parts: Sequence[Part]) -> tuple[Part, ...]:
        texts = self._texts()
        return tuple(piece.part for piece in _joined([Piece(texts.get(part, part), False) for part in parts]))


def _filled(parts: Sequence[Part], turn: Turn, texts: Mapping[Part, str]) -> Iterator[Part]:
    for part in parts:
        if part is not Slot.MESSAGE:
            yield texts.get(part, part)
        elif not turn.image:
            yield turn.text
        elif turn.before_image is None:
            yield Slot.IMAGE
            yield "\n" + turn.text if turn.text else ""
        else:
            yield turn.before_image
            yield Slot.IMAGE
            yield turn.text


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Join neighbouring texts with the same loss: they are one text for the tokenizer, as in the originals."""
    joined: list[Piece] = []
    for piece in pieces:
        before = joined[-1] if joined else None
        if (
            before
            and isinstance(before.part, str)
            and isinstance(piece.part, str)
            and before.carries_loss == piece.carries_loss
        ):
            joined[-1] = Piece(before.part + piece.part, piece.carries_loss)
        else:
            joined.append(piece)
    return joined
