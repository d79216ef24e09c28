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
    given = "turn.text" if template.keeps_empty_system else "turn.text or chat.system"
    system = "{%- set chat.system = " + given + " -%}"
    return (
        "{%- set chat = namespace(begun=false, system=" + json.dumps(template.system or "") + ") -%}\n"
        "{%- for message in messages -%}\n"
        f"{_READ_MESSAGE}"
        "{%- if message['role'] == 'system' and loop.first -%}\n"
        f"{_refuse('has no place for a system text') if not template.takes_system else system}\n"
        "{%- elif message['role'] == 'user' and not chat.begun -%}\n"
        "{%- set chat.begun = true -%}\n"
        f"{_opening(template, render)}\n"
        "{%- elif message['role'] == 'user' -%}\n"
        f"{later}\n"
        "{%- elif message['role'] == 'assistant' -%}\n"
        f"{render(template.answer)}\n"
        "{%- else -%}\n"
        f"{_refuse('takes a system text first, if any, then messages of user and assistant')}\n"
        "{%- endif -%}\n"
        "{%- endfor -%}"
    )


def _opening(template: Template, render: "_Renderer") -> str:
    own = render(template.opening, begins_chat=True)
    if template.given_opening is None:
        return own
    given = render(template.given_opening, begins_chat=True)
    return "{%- if chat.system -%}" + given + "{%- else -%}" + own + "{%- endif -%}"


class _Renderer:
    """Makes the Jinja text of a sequence of template parts."""

    def __init__(self, template: Template, tokenizer: Tokenizer) -> None:
        begin_id = tokenizer.bos_id
        self._begin = "" if begin_id is None else tokenizer.pieces([begin_id])[0]
        self._label = template.label or ""
        scheme = tokenizer.prefix_scheme
        # transformers adds no space to a text that already begins with one; training did.
        self._start = "" if scheme == "never" else " "
        self._before_all = " " if template.is_one_text and scheme != "never" else ""
        self._image = IMAGE_TOKEN
        if template.marks_image and tokenizer.im_start_id is not None and tokenizer.im_end_id is not None:
            before, after = tokenizer.pieces([tokenizer.im_start_id, tokenizer.im_end_id])
            self._image = f"{before}{IMAGE_TOKEN}{after}"
            spaced = scheme == "always"
        else:
            spaced = scheme == "always" if template.image_is_token else template.image_parts_text and scheme != "never"
        self._after_image = " " if spaced else ""

    def __call__(self, parts: Sequence[Part], *, begins_chat: bool = False) -> str:
        expressions = [json.dumps(self._before_all)] if begins_chat and self._before_all else []
        starts = False
        for part, following in zip(parts, (*parts[1:], None), strict=True):
            if part is Slot.START:
                starts = True
                continue
            if starts:
                self._add_space(expressions, part)
            expressions.append(self._expression(part, following))
            starts = False
        return "".join("{{- " + expression + " -}}" for expression in expressions)

    def _add_space(self, expressions: list[str], part: Part) -> None:
        """Add SentencePiece's own space before a text that begins anew."""
        if not self._start or isinstance(part, Special):
            return
        if part is Slot.MESSAGE:
            expressions.append("' ' if turn.text else ''")
        elif expressions and expressions[-1].startswith('"'):
            expressions[-1] = json.dumps(json.loads(expressions[-1]) + self._start)
        else:
            expressions.append(json.dumps(self._start))

    def _expression(self, part: Part, following: Part | None) -> str:
        if part is Slot.SYSTEM:
            return "chat.system"
        if part is Slot.MESSAGE and self._after_image and isinstance(following, Special):
            # An image without words is followed by no text that could begin with a space.
            behind = json.dumps(f"{self._after_image}\n")
            return f"({json.dumps(self._image)} + ({behind} if turn.text else '') if turn.image else '') + turn.text"
        if part is Slot.MESSAGE:
            image = json.dumps(self._image + self._after_image)
            return f"({image} + ('\\n' if turn.text else '') if turn.image else '') + turn.text"
        if isinstance(part, Special):
            return json.dumps(part.token)
        texts: dict[Part, str] = {Slot.BEGIN: self._begin, Slot.IMAGE: self._image, Slot.LABEL: self._label}
        return json.dumps(part if isinstance(part, str) else texts[part])


def _refuse(reason: str) -> str:
    return "{{- raise_exception(" + json.dumps(f"this chat template {reason}") + ") -}}"
