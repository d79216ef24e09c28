"""The estimated length of a prompt is that of the pieces it is made of, for every template."""

import pytest

from neva_recipes.plan.data.prompt_lengths import PromptMaker
from neva_recipes.prompts.conversation import Conversation, Turn
from neva_recipes.prompts.templates import TEMPLATES, Slot

QUESTION = Turn("human", "What is this, über all?", image=True)
IN_PLACE = Turn("human", " behind", image=True, before_image="in front ")
CONVERSATIONS = [
    (QUESTION, Turn("gpt", "A house.")),
    (QUESTION._replace(text=""), Turn("gpt", "日本語")),
    (IN_PLACE, Turn("gpt", "")),
    (QUESTION, Turn("gpt", " "), Turn("human", "And?"), Turn("gpt", "A long answer, " * 9)),
    (Turn("human", "No image"), Turn("gpt", "None"), Turn("human", "", image=True), Turn("gpt", "x")),
    (QUESTION._replace(label="quality:1"), Turn("gpt", "Yes.")),
]


def by_pieces(template, conversation):
    """Return length, the first token that carries loss, and the end of the image, piece by piece."""
    length, learns_at, image_end = 0.0, None, 0.0
    for piece in template.pieces(conversation.turns, conversation.system):
        if piece.carries_loss and learns_at is None:
            learns_at = max(1, round(length))
        if isinstance(piece.part, str):
            letters = sum(letter < "\x80" for letter in piece.part)
            length += letters / 4 + len(piece.part) - letters
        elif piece.part is not Slot.START:
            length += 578 if piece.part is Slot.IMAGE else 1
            image_end = length if piece.part is Slot.IMAGE else image_end
    return round(length), learns_at, round(image_end)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=list(TEMPLATES))
@pytest.mark.parametrize("turns", CONVERSATIONS)
@pytest.mark.parametrize("system", [None, "", "A system text of its own."])
def test_the_estimate_is_that_of_the_pieces(template, turns, system):
    fits = (template.asking is not None or (len(turns) == 2 and turns[0].image)) and (
        template.label is not None or turns[0].label is None
    )
    fits = fits and (template.is_verbatim or turns[0].before_image is None)
    if not fits:
        return
    conversation = Conversation(turns, system if template.takes_system else None, "a.jpg")
    found = PromptMaker(template, None, 576, 2).extent(conversation)
    assert (found.length, found.learns_at, found.image_end) == by_pieces(template, conversation)
