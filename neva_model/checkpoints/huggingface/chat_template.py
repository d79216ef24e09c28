"""A recipe's conversation template as a Jinja template for transformers."""

import json
from collections.abc import Sequence

from neva_model.tokenizers import Tokenizer
from neva_recipes.prompts.templates import Part, Slot, Special, Template

__all__ = ["IMAGE_TOKEN", "chat_template"]

IMAGE_TOKEN = "<image>"
"""The token that transformers replaces with the positions of an image."""

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
    """Return a Jinja template with which transformers encodes a chat to the tokens that the model was trained on.

    Every message is a string, or a list of parts of type `text` and `image`. The first message may be the system text
    if the template has a place for one; otherwise the template's own system text is used.

    In training, a SentencePiece tokenizer may add a leading space after the beginning of the sequence and after an
    image. transformers does not, so the Jinja template contains the space.

    Args:
        template: The template of the recipe.
        tokenizer: The model's tokenizer.
    """
    render = _Renderer(template, tokenizer)
    later = render(template.asking) if template.asking else _refuse("takes one question and one answer")
    # LLaVA treats an empty system text as none.
    given = "turn.text" if template.is_verbatim else "turn.text or chat.system"
    system = "{%- set chat.system = " + given + " -%}"
    return (
        "{%- set chat = namespace(begun=false, system=" + json.dumps(template.system or "") + ") -%}\n"
        "{%- for message in messages -%}\n"
        f"{_READ_MESSAGE}"
        "{%- if message['role'] == 'system' and loop.first -%}\n"
        f"{_refuse('has no place for a system text') if template.system is None else system}\n"
        "{%- elif message['role'] == 'user' and not chat.begun -%}\n"
        "{%- set chat.begun = true -%}\n"
        f"{render(template.opening, begins_chat=True)}\n"
        "{%- elif message['role'] == 'user' -%}\n"
        f"{later}\n"
        "{%- elif message['role'] == 'assistant' -%}\n"
        f"{render(template.answer)}\n"
        "{%- else -%}\n"
        f"{_refuse('takes a system text first, if any, then messages of user and assistant')}\n"
        "{%- endif -%}\n"
        "{%- endfor -%}"
    )


class _Renderer:
    """Makes the Jinja text of a sequence of template parts."""

    def __init__(self, template: Template, tokenizer: Tokenizer) -> None:
        begin_id = tokenizer.bos_id
        self._begin = "" if begin_id is None else tokenizer.pieces([begin_id])[0]
        self._label = template.label or ""
        scheme = tokenizer.prefix_scheme
        # transformers adds no space to a text that already begins with one; training did.
        self._after_begin = "" if scheme == "never" else " "
        self._before_all = " " if template.is_one_text and scheme != "never" else ""
        self._image = IMAGE_TOKEN
        if template.marks_image and tokenizer.im_start_id is not None and tokenizer.im_end_id is not None:
            before, after = tokenizer.pieces([tokenizer.im_start_id, tokenizer.im_end_id])
            self._image = f"{before}{IMAGE_TOKEN}{after}"
            spaced = scheme == "always"
        else:
            spaced = template.image_parts_text and scheme != "never"
        self._after_image = " " if spaced else ""

    def __call__(self, parts: Sequence[Part], *, begins_chat: bool = False) -> str:
        expressions = [self._expression(part) for part in parts]
        if begins_chat and isinstance(parts[0], Special) and parts[0].token == self._begin:
            expressions[0] = json.dumps(self._begin + self._after_begin)
        elif begins_chat and self._before_all:
            expressions.insert(0, json.dumps(self._before_all))
        return "".join("{{- " + expression + " -}}" for expression in expressions)

    def _expression(self, part: Part) -> str:
        if part is Slot.SYSTEM:
            return "chat.system"
        if part is Slot.MESSAGE:
            image = json.dumps(self._image + self._after_image)
            return f"({image} + ('\\n' if turn.text else '') if turn.image else '') + turn.text"
        if isinstance(part, Special):
            return json.dumps(part.token)
        texts: dict[Part, str] = {Slot.BEGIN: self._begin, Slot.IMAGE: self._image, Slot.LABEL: self._label}
        return json.dumps(part if isinstance(part, str) else texts[part])


def _refuse(reason: str) -> str:
    return "{{- raise_exception(" + json.dumps(f"this chat template {reason}") + ") -}}"
