"""Conversation templates: what stands around the words, and which of it carries loss.

A template is data: tuples of text, special tokens and slots. Training and inference build their prompts from the same
tuples piece by piece, so what carries loss is known from the start and never searched for.
"""

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from neva_recipes.config import ConvTemplate, DataError
from neva_recipes.prompts._system_prompts import LLAMA_2_SYSTEM, LLAVA_LLAMA_2_SYSTEM, NVGPT_LABELS, V1_SYSTEM
from neva_recipes.prompts.conversation import Turn

__all__ = ["TEMPLATES", "Part", "Piece", "Slot", "Special", "Template", "get_template"]


@dataclass(frozen=True)
class Special:
    """A special token of the vocabulary, by the name it has there."""

    token: str


class Slot(enum.Enum):
    """A place that something is put into."""

    BEGIN = "begin"
    """The tokenizer's own token for the begin of a sequence, if it has one."""
    IMAGE = "image"
    """The positions of an image."""
    MESSAGE = "message"
    """The words of a turn."""


Part = str | Special | Slot
"""What templates are made of."""


@dataclass(frozen=True)
class Piece:
    """A part of a prompt with every message filled in.

    Attributes:
        part: Text, a special token, Slot.BEGIN, or Slot.IMAGE.
        carries_loss: Whether the model learns to write it.
    """

    part: Part
    carries_loss: bool


@dataclass(frozen=True)
class Template:
    """How a conversation becomes a prompt.

    Attributes:
        name: Its name in a recipe.
        first_question: The begin of the prompt with the first question, up to where the answer begins.
        question: Every later question, up to where the answer begins; None if there is only one exchange.
        answer: An answer with all that carries loss.
        stop: The special token that ends an answer, if one does.
        stop_text: The text that ends an answer, if none does.
        image_parts_text: Whether the text after an image is encoded like the begin of a text (LLaVA cuts the prompt
            at images and encodes the parts alone), which matters to SentencePiece's leading space.
        marks_image: Whether the tokens of `use_im_start_end` stand around the image; LLaVA's plain drops them.
    """

    name: ConvTemplate
    first_question: tuple[Part, ...]
    question: tuple[Part, ...] | None
    answer: tuple[Part, ...]
    stop: Special | None
    stop_text: str | None = None
    image_parts_text: bool = True
    marks_image: bool = True

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Names of the special tokens that a tokenizer must have."""
        parts = (*self.first_question, *(self.question or ()), *self.answer)
        return tuple(dict.fromkeys(part.token for part in parts if isinstance(part, Special)))

    def pieces(self, turns: Sequence[Turn]) -> list[Piece]:
        """Return the prompt of a conversation.

        An answer without words carries no loss; nothing else loses its loss with it.

        Args:
            turns: Question, answer, question, ...; with a question at the end the prompt stops where its answer
                begins.

        Raises:
            DataError: The template takes one exchange about an image, and the conversation is something else.
        """
        if self.question is None and (len(turns) > 2 or not turns[0].image):
            raise DataError(
                f"data.conv_template={self.name} takes one question with <image> and one answer, "
                f"got {len(turns)} turns{'' if turns[0].image else ' and no image'}"
            )
        pieces = []
        for number, turn in enumerate(turns):
            if turn.role == "gpt":
                parts, carries_loss = self.answer, bool(turn.text.strip())
            else:
                parts, carries_loss = self.first_question if number == 0 else self.question or (), False
            pieces += [Piece(part, carries_loss) for part in _filled(parts, turn)]
        return _joined(pieces)


def _filled(parts: Sequence[Part], turn: Turn) -> Iterator[Part]:
    for part in parts:
        if part is not Slot.MESSAGE:
            yield part
            continue
        if turn.image:
            yield Slot.IMAGE
        yield "\n" + turn.text if turn.image and turn.text else turn.text


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Join neighbouring texts that share their loss: they are one text to the tokenizer, as in the originals."""
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
        first_question=(Special("<s>"), f"[INST] <<SYS>>\n{system}\n<</SYS>>\n\n", Slot.MESSAGE, " [/INST]"),
        question=(Special("<s>"), "[INST] ", Slot.MESSAGE, " [/INST]"),
        answer=(" ", Slot.MESSAGE, " ", Special("</s>")),
        stop=Special("</s>"),
    )


def _nvgpt() -> Template:
    speaker, end_of_turn = Special("<extra_id_1>"), "\n"
    question: tuple[Part, ...] = ("User\n", Slot.MESSAGE, end_of_turn, speaker, "Assistant\n", Special("<extra_id_2>"))
    question += (NVGPT_LABELS + "\n",)
    return Template(
        "nvgpt",
        first_question=(Special("<extra_id_0>"), f"System\n{V1_SYSTEM}\n\n", speaker, *question),
        question=question,
        answer=(Slot.MESSAGE, end_of_turn, speaker),
        stop=speaker,
        image_parts_text=False,
    )


def _llama_3() -> Template:
    def header(role: str) -> tuple[Part, ...]:
        return Special("<|start_header_id|>"), role, Special("<|end_header_id|>"), "\n\n"

    end = Special("<|eot_id|>")
    question = (*header("user"), Slot.MESSAGE, end, *header("assistant"))
    return Template(
        "llama_3",
        first_question=(Special("<|begin_of_text|>"), *header("system"), LLAVA_LLAMA_2_SYSTEM, end, *question),
        question=question,
        answer=(Slot.MESSAGE, end),
        stop=end,
        image_parts_text=False,
    )


def _chatml() -> Template:
    start, end = Special("<|im_start|>"), Special("<|im_end|>")
    question: tuple[Part, ...] = (start, "user\n", Slot.MESSAGE, end, "\n", start, "assistant\n")
    return Template(
        "chatml",
        first_question=(start, "system\nAnswer the questions.", end, "\n", *question),
        question=question,
        answer=(Slot.MESSAGE, end, "\n"),
        stop=end,
        image_parts_text=False,
    )


TEMPLATES: dict[ConvTemplate, Template] = {
    template.name: template
    for template in (
        Template(
            "plain",
            first_question=(Slot.BEGIN, Slot.IMAGE),
            question=None,
            answer=(Slot.MESSAGE, "\n"),
            stop=None,
            stop_text="\n",
            marks_image=False,
        ),
        Template(
            "v1",
            first_question=(Special("<s>"), f"{V1_SYSTEM} USER: ", Slot.MESSAGE, " ASSISTANT:"),
            question=("USER: ", Slot.MESSAGE, " ASSISTANT:"),
            answer=(" ", Slot.MESSAGE, Special("</s>")),
            stop=Special("</s>"),
        ),
        _llama_2("llama_2", LLAMA_2_SYSTEM),
        _llama_2("llava_llama_2", LLAVA_LLAMA_2_SYSTEM),
        Template(
            "mistral_instruct",
            first_question=(Special("<s>"), "[INST] ", Slot.MESSAGE, " [/INST]"),
            question=("[INST] ", Slot.MESSAGE, " [/INST]"),
            answer=(" ", Slot.MESSAGE, " ", Special("</s>")),
            stop=Special("</s>"),
        ),
        _nvgpt(),
        _llama_3(),
        _chatml(),
    )
}
"""Every template by its name in a recipe."""


def get_template(name: ConvTemplate) -> Template:
    """Return the template of a recipe's `data.conv_template`."""
    return TEMPLATES[name]
