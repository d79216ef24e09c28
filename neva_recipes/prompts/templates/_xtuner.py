"""The templates of XTuner.

XTuner encodes each question, each answer and each separator apart, and puts the token that begins a sequence at the
start and again behind every token that ends one. It has no system text unless a record gives one. The separator behind
the last answer carries no loss and is left out.
"""

from neva_recipes.config import ConvTemplate
from neva_recipes.prompts.templates._system_prompts import V1_SYSTEM, XTUNER_LLAMA_2_SYSTEM
from neva_recipes.prompts.templates._template import Part, Slot, Special, Template

__all__ = ["XTUNER"]

_SEPARATOR: tuple[Part, ...] = (Slot.START, "\n")


def _plain_words(name: ConvTemplate, origin: str, *, system: tuple[Part, ...], question: tuple[Part, ...]) -> Template:
    """Return a template whose answers end with the tokenizer's own token."""
    begin, end = Special("<s>"), Special("</s>")
    return Template(
        name,
        origin,
        opening=(begin, Slot.START, *question),
        asking=(*_SEPARATOR, begin, Slot.START, *question),
        answer=(Slot.START, Slot.MESSAGE, end),
        stop=end,
        given_opening=(begin, Slot.START, *system, *question),
    )


def _marked(
    name: ConvTemplate,
    origin: str,
    *,
    begin: tuple[Part, ...],
    roles: tuple[tuple[Part, ...], tuple[Part, ...], tuple[Part, ...]],
    end: Special,
) -> Template:
    """Return a template with tokens of its own around the turns; no other token ends an answer.

    Args:
        name: Its name.
        origin: Its name in XTuner.
        begin: What begins a sequence.
        roles: What stands before the words of system, user and assistant.
        end: What ends a turn.
    """
    system, user, assistant = roles
    question = (*user, Slot.MESSAGE, end, "\n", *assistant)
    return Template(
        name,
        origin,
        opening=(*begin, Slot.START, *question),
        asking=(*_SEPARATOR, Slot.START, *question),
        answer=(Slot.START, Slot.MESSAGE, end),
        stop=end,
        given_opening=(*begin, Slot.START, *system, Slot.SYSTEM, end, "\n", *question),
    )


def _im_start(role: str) -> tuple[Part, ...]:
    return Special("<|im_start|>"), f"{role}\n"


_IM_ROLES = (_im_start("system"), _im_start("user"), _im_start("assistant"))
_PHI_3_ROLES: tuple[tuple[Part, ...], tuple[Part, ...], tuple[Part, ...]] = (
    (Special("<|system|>"), "\n"),
    (Special("<|user|>"), "\n"),
    (Special("<|assistant|>"), "\n"),
)
_INST: tuple[Part, ...] = ("[INST] ", Slot.MESSAGE, " [/INST]")

XTUNER: tuple[Template, ...] = (
    _marked(
        "internlm2_chat",
        "XTuner internlm2_chat",
        begin=(Special("<s>"),),
        roles=_IM_ROLES,
        end=Special("<|im_end|>"),
    ),
    _marked("xtuner_qwen_chat", "XTuner qwen_chat", begin=(), roles=_IM_ROLES, end=Special("<|im_end|>")),
    _marked(
        "xtuner_phi3_chat",
        "XTuner phi3_chat",
        begin=(Special("<s>"),),
        roles=_PHI_3_ROLES,
        end=Special("<|end|>"),
    ),
    _plain_words(
        "xtuner_vicuna",
        "XTuner vicuna",
        system=(f"{V1_SYSTEM} ", Slot.SYSTEM, "\n "),
        question=("USER: ", Slot.MESSAGE, " ASSISTANT:"),
    ),
    _plain_words(
        "xtuner_llama2_chat",
        "XTuner llama2_chat",
        system=(f"[INST] <<SYS>>\n {XTUNER_LLAMA_2_SYSTEM}\n", Slot.SYSTEM, "\n<</SYS>>\n [/INST] "),
        question=_INST,
    ),
    _plain_words(
        "xtuner_mistral",
        "XTuner mistral",
        system=("[INST] ", Slot.SYSTEM, " [/INST]\n"),
        question=_INST,
    ),
)
"""Every template of XTuner."""
