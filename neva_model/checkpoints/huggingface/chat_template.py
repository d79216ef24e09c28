"""A recipe's conversation template as the Jinja text that transformers renders chats with."""

import json
from collections.abc import Sequence

from neva_model.tokenizers import Tokenizer
from neva_recipes.prompts.templates import Part, Slot, Special, Template

__all__ = ["IMAGE_TOKEN", "chat_template"]

IMAGE_TOKEN = "<image>"
"""The token that transformers replaces by the positions of an image."""

_READ_MESSAGE = """\
{%- set turn = namespace(text='', image=false) -%}
{%- if message['content'] is string -%}
{%- set turn.text = message['content'] -%}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{%- set turn.image = true -%}{%- endif -%}
{%- if part['type'] == 'text' -%}{%- set turn.text = turn.text + part['text'] -%}{%- endif -%}
{%- endfor -%}
{%- endif -%}
"""


def chat_template(template: Template, tokenizer: Tokenizer) -> str:
    """Return Jinja text that renders a chat so that transformers encodes it to the tokens the model was trained on.

    Every message is a string, or a list of parts of type `text` and `image`. The template's own system text is fixed.

    Where a SentencePiece tokenizer put a leading space in training, after the begin of the sequence and after an
    image, transformers does not; there the space is written out.

    Args:
        template: The template of the recipe.
        tokenizer: The model's tokenizer.
    """
    render = _Renderer(template, tokenizer)
    later = render(template.question) if template.question else _refuse("takes one question and one answer")
    return (
        "{%- for message in messages -%}\n"
        f"{_READ_MESSAGE}"
        "{%- if message['role'] == 'user' and loop.first -%}\n"
        f"{render(template.first_question, begins_chat=True)}\n"
        "{%- elif message['role'] == 'user' -%}\n"
        f"{later}\n"
        "{%- elif message['role'] == 'assistant' -%}\n"
        f"{render(template.answer)}\n"
        "{%- else -%}\n"
        f"{_refuse('has its own system text; expected messages of user and assistant only')}\n"
        "{%- endif -%}\n"
        "{%- endfor -%}"
    )


class _Renderer:
    """Makes the Jinja text of a sequence of template parts."""

    def __init__(self, template: Template, tokenizer: Tokenizer) -> None:
        begin_id = tokenizer.bos_id
        self._begin = "" if begin_id is None else tokenizer.pieces([begin_id])[0]
        # With the other schemes transformers does as the training did: it adds no space, or one after every special.
        self._space = " " if tokenizer.prefix_scheme == "first" else ""
        self._image = IMAGE_TOKEN
        if template.marks_image and tokenizer.im_start_id is not None and tokenizer.im_end_id is not None:
            before, after = tokenizer.pieces([tokenizer.im_start_id, tokenizer.im_end_id])
            self._image = f"{before}{IMAGE_TOKEN}{after}"
        self._after_image = self._space if template.image_parts_text and self._image == IMAGE_TOKEN else ""

    def __call__(self, parts: Sequence[Part], *, begins_chat: bool = False) -> str:
        expressions = [self._expression(part) for part in parts]
        if begins_chat and isinstance(parts[0], Special) and parts[0].token == self._begin:
            expressions[0] = json.dumps(self._begin + self._space)
        return "".join("{{- " + expression + " -}}" for expression in expressions)

    def _expression(self, part: Part) -> str:
        if part is Slot.BEGIN:
            return json.dumps(self._begin)
        if part is Slot.IMAGE:
            return json.dumps(self._image)
        if part is Slot.MESSAGE:
            image = json.dumps(self._image + self._after_image)
            return f"({image} + ('\\n' if turn.text else '') if turn.image else '') + turn.text"
        return json.dumps(part.token if isinstance(part, Special) else part)


def _refuse(reason: str) -> str:
    return "{{- raise_exception(" + json.dumps(f"this chat template {reason}") + ") -}}"
