"""The templates of LLaVA, which cuts a prompt at its image and encodes what lies between as texts of their own."""

from neva_recipes.config import ConvTemplate
from neva_recipes.prompts.templates._system_prompts import (
    CHATML_SYSTEM,
    LLAMA_2_SYSTEM,
    LLAVA_LLAMA_2_SYSTEM,
    MPT_SYSTEM,
    V1_HUMAN_SYSTEM,
    V1_SYSTEM,
)
from neva_recipes.prompts.templates._template import Slot, Special, Template

__all__ = ["LLAVA"]

_BEGIN, _END = Special("<s>"), Special("</s>")


def _v1(name: ConvTemplate, origin: str, system: str) -> Template:
    return Template(
        name,
        origin,
        opening=(_BEGIN, Slot.START, Slot.SYSTEM, " USER: ", Slot.MESSAGE, " ASSISTANT:"),
        asking=("USER: ", Slot.MESSAGE, " ASSISTANT:"),
        answer=(" ", Slot.MESSAGE, _END),
        stop=_END,
        system=system,
    )


def _llama_2(name: ConvTemplate, origin: str, system: str) -> Template:
    return Template(
        name,
        origin,
        opening=(_BEGIN, Slot.START, "[INST] <<SYS>>\n", Slot.SYSTEM, "\n<</SYS>>\n\n", Slot.MESSAGE, " [/INST]"),
        asking=(_BEGIN, "[INST] ", Slot.MESSAGE, " [/INST]"),
        answer=(" ", Slot.MESSAGE, " ", _END),
        stop=_END,
        system=system,
    )


def _mpt(name: ConvTemplate, origin: str, system: str) -> Template:
    """Return a template of LLaVA's kind `MPT`.

    LLaVA's own labels for it are shifted by a token, and leave single exchanges without loss; here the answers with the
    token that ends them carry it.
    """
    start, end = Special("<|im_start|>"), Special("<|im_end|>")
    return Template(
        name,
        origin,
        opening=(start, "system\n", Slot.SYSTEM, end, start, "user\n", Slot.MESSAGE, end, start, "assistant\n"),
        asking=(start, "user\n", Slot.MESSAGE, end, start, "assistant\n"),
        answer=(Slot.MESSAGE, end),
        stop=end,
        system=system,
    )


LLAVA: tuple[Template, ...] = (
    Template(
        "plain",
        "LLaVA, stage 1",
        opening=(Slot.BEGIN, Slot.IMAGE),
        asking=None,
        answer=(Slot.MESSAGE, "\n"),
        stop=None,
        stop_text="\n",
        marks_image=False,
    ),
    _v1("v1", "LLaVA v1, vicuna_v1", V1_SYSTEM),
    _llama_2("llama_2", "LLaVA llama_2, Meta's system text", LLAMA_2_SYSTEM),
    _llama_2("llava_llama_2", "LLaVA llava_llama_2", LLAVA_LLAMA_2_SYSTEM),
    Template(
        "mistral_instruct",
        "LLaVA mistral_instruct",
        opening=(_BEGIN, Slot.START, "[INST] ", Slot.MESSAGE, " [/INST]"),
        asking=("[INST] ", Slot.MESSAGE, " [/INST]"),
        answer=(" ", Slot.MESSAGE, " ", _END),
        stop=_END,
    ),
    _v1("llava_v1_human", "LLaVA llava_v1, of a curious human", V1_HUMAN_SYSTEM),
    _mpt("chatml_direct", "LLaVA chatml_direct", CHATML_SYSTEM),
    _mpt("mpt", "LLaVA mpt", MPT_SYSTEM),
)
"""Every template of LLaVA."""
