"""Conversation templates: the text around the turns, and which of it carries loss.

A template is data: tuples of text, special tokens and slots. Training and inference build their prompts piece by piece
from the same tuples, so it is known from the start what carries loss, without searching for it.
"""

from typing import get_args

from neva_recipes.config import ConvTemplate
from neva_recipes.prompts.templates._llava import LLAVA
from neva_recipes.prompts.templates._nemo import NEMO
from neva_recipes.prompts.templates._others import OTHERS
from neva_recipes.prompts.templates._template import Part, Piece, Slot, Special, Template
from neva_recipes.prompts.templates._xtuner import XTUNER

__all__ = ["TEMPLATES", "Part", "Piece", "Slot", "Special", "Template", "get_template"]

_FOUND = {template.name: template for template in (*LLAVA, *NEMO, *OTHERS, *XTUNER)}

TEMPLATES: dict[ConvTemplate, Template] = {name: _FOUND[name] for name in get_args(ConvTemplate)}
"""Every template, by its name in a recipe; where several would do, the first of them is offered."""


def get_template(name: ConvTemplate) -> Template:
    """Return the template of a recipe's `data.conv_template`."""
    return TEMPLATES[name]
