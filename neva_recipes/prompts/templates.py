"""Conversation templates: the text around the turns, and which of it carries loss.

A template is data: tuples of text, special tokens and slots. Training and inference build their prompts piece by piece
from the same tuples, so it is known from the start what carries loss, without searching for it.
"""

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from neva_recipes.config import ConvTemplate, DataError
from neva_recipes.prompts._system_prompts import LLAMA_2_SYSTEM, LLAVA_LLAMA_2_SYSTEM, NVGPT_LABELS, V1_SYSTEM
from neva_recipes.prompts.conversation import Conversation, Turn

__all__ = ["TEMPLATES", "Part", "Piece", "Slot", "Special", "Template", "get_template"]


@dataclass(frozen=True)
class Special:
    """A special token of the vocabulary, by its name there."""

    token: str


class Slot(enum.Enum):
    """A place to be filled in."""

    BEGIN = "begin"
    """The tokenizer's own token for the begin of a sequence, if it has one."""
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
        part: Text, a special token, Slot.BEGIN, or Slot.IMAGE.
        carries_loss: Whether the model learns to write this part.
    """

    part: Part
    carries_loss: bool


@dataclass(frozen=True)
class Template:
    """How a conversation becomes a prompt.

    Attributes:
        name: Its name in a recipe.
        opening: The beginning of the prompt with the first question, up to where the answer begins.
        asking: Every later question, up to where the answer begins; `None` if there is only one exchange.
        answer: An answer with everything that carries loss.
        stop: The special token that ends an answer, if there is one.
        stop_text: The text that ends an answer, if there is no such token.
        system: The system text if a record has none; `None` if the template has no place for one.
        label: The attributes of an answer if a record gives none; `None` if the template has no place for them.
        image_parts_text: Whether the text after an image is encoded like the start of a text, which matters for
            SentencePiece's leading space (LLaVA cuts the prompt at images and encodes the parts separately).
        marks_image: Whether the tokens of `use_im_start_end` surround the image; LLaVA's plain drops them.
        is_verbatim: Whether a record's text is kept as it is, as in NeMo: the image stays in its place, nothing is
            stripped, and an empty system text counts. Otherwise, as in LLaVA, the image moves to the front of its turn,
            and an empty system text counts as none.
        is_one_text: Whether the prompt is a single text for SentencePiece, as in NeMo, so that SentencePiece's own
            space comes before the special token at the beginning.
    """

    name: ConvTemplate
    opening: tuple[Part, ...]
    asking: tuple[Part, ...] | None
    answer: tuple[Part, ...]
    stop: Special | None
    stop_text: str | None = None
    system: str | None = None
    label: str | None = None
    image_parts_text: bool = True
    marks_image: bool = True
    is_verbatim: bool = False
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
        parts = (*self.opening, *(self.asking or ()), *self.answer)
        return tuple(dict.fromkeys(part.token for part in parts if isinstance(part, Special)))

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
                parts, carries_loss = self.opening if number == 0 else self.asking or (), False
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


def _llama_2(name: ConvTemplate, system: str) -> Template:
    return Template(
        name,
        opening=(Special("<s>"), "[INST] <<SYS>>\n", Slot.SYSTEM, "\n<</SYS>>\n\n", Slot.MESSAGE, " [/INST]"),
        asking=(Special("<s>"), "[INST] ", Slot.MESSAGE, " [/INST]"),
        answer=(" ", Slot.MESSAGE, " ", Special("</s>")),
        stop=Special("</s>"),
        system=system,
    )


def _nvgpt() -> Template:
    speaker, end_of_turn = Special("<extra_id_1>"), "\n"
    asking: tuple[Part, ...] = ("User\n", Slot.MESSAGE, end_of_turn, speaker, "Assistant\n", Special("<extra_id_2>"))
    asking += (Slot.LABEL, "\n")
    return Template(
        "nvgpt",
        opening=(Special("<extra_id_0>"), "System\n", Slot.SYSTEM, speaker, *asking),
        asking=asking,
        answer=(Slot.MESSAGE, end_of_turn, speaker),
        stop=speaker,
        # The blank line belongs to NeMo's text; a record's own text gets no blank line.
        system=f"{V1_SYSTEM}\n\n",
        label=NVGPT_LABELS,
        image_parts_text=False,
        is_verbatim=True,
        is_one_text=True,
    )


def _llama_3() -> Template:
    def header(role: str) -> tuple[Part, ...]:
        return Special("<|start_header_id|>"), role, Special("<|end_header_id|>"), "\n\n"

    end = Special("<|eot_id|>")
    asking = (*header("user"), Slot.MESSAGE, end, *header("assistant"))
    return Template(
        "llama_3",
        opening=(Special("<|begin_of_text|>"), *header("system"), Slot.SYSTEM, end, *asking),
        asking=asking,
        answer=(Slot.MESSAGE, end),
        stop=end,
        system=LLAVA_LLAMA_2_SYSTEM,
        image_parts_text=False,
        is_verbatim=True,
    )


def _chatml() -> Template:
    start, end = Special("<|im_start|>"), Special("<|im_end|>")
    asking: tuple[Part, ...] = (start, "user\n", Slot.MESSAGE, end, "\n", start, "assistant\n")
    return Template(
        "chatml",
        opening=(start, "system\n", Slot.SYSTEM, end, "\n", *asking),
        asking=asking,
        answer=(Slot.MESSAGE, end, "\n"),
        stop=end,
        system="Answer the questions.",
        image_parts_text=False,
    )


TEMPLATES: dict[ConvTemplate, Template] = {
    template.name: template
    for template in (
        Template(
            "plain",
            opening=(Slot.BEGIN, Slot.IMAGE),
            asking=None,
            answer=(Slot.MESSAGE, "\n"),
            stop=None,
            stop_text="\n",
            marks_image=False,
        ),
        Template(
            "v1",
            opening=(Special("<s>"), Slot.SYSTEM, " USER: ", Slot.MESSAGE, " ASSISTANT:"),
            asking=("USER: ", Slot.MESSAGE, " ASSISTANT:"),
            answer=(" ", Slot.MESSAGE, Special("</s>")),
            stop=Special("</s>"),
            system=V1_SYSTEM,
        ),
        _llama_2("llama_2", LLAMA_2_SYSTEM),
        _llama_2("llava_llama_2", LLAVA_LLAMA_2_SYSTEM),
        Template(
            "mistral_instruct",
            opening=(Special("<s>"), "[INST] ", Slot.MESSAGE, " [/INST]"),
            asking=("[INST] ", Slot.MESSAGE, " [/INST]"),
            answer=(" ", Slot.MESSAGE, " ", Special("</s>")),
            stop=Special("</s>"),
        ),
        _nvgpt(),
        _llama_3(),
        _chatml(),
    )
}
"""Every template, by its name in a recipe."""


def get_template(name: ConvTemplate) -> Template:
    """Return the template of a recipe's `data.conv_template`."""
    return TEMPLATES[name]
