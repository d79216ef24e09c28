"""The templates of models that are not bound to one program, of Megatron-LM, and of LLaMA-Factory."""

from dataclasses import replace

from neva_recipes.prompts.templates._system_prompts import CHATML_SYSTEM, V1_SYSTEM
from neva_recipes.prompts.templates._template import Part, Slot, Special, Template

__all__ = ["OTHERS"]


def _chatml() -> Template:
    start, end = Special("<|im_start|>"), Special("<|im_end|>")
    asking: tuple[Part, ...] = (start, "user\n", Slot.MESSAGE, end, "\n", start, "assistant\n")
    return Template(
        "chatml",
        "ChatML",
        opening=(start, "system\n", Slot.SYSTEM, end, "\n", *asking),
        asking=asking,
        answer=(Slot.MESSAGE, end, "\n"),
        stop=end,
        system=CHATML_SYSTEM,
        image_parts_text=False,
    )


def _gemma() -> Template:
    start, end = Special("<start_of_turn>"), Special("<end_of_turn>")
    asking: tuple[Part, ...] = (start, "user\n", Slot.MESSAGE, end, "\n", start, "model\n")
    return Template(
        "gemma",
        "Gemma's own chat template",
        opening=(Special("<bos>"), *asking),
        asking=asking,
        answer=(Slot.MESSAGE, end, "\n"),
        stop=end,
        image_parts_text=False,
    )


def _megatron_mistral() -> Template:
    end = Special("</s>")
    asking: tuple[Part, ...] = ("[INST] ", Slot.MESSAGE, "[/INST]")
    return Template(
        "megatron_mistral",
        "Megatron-LM mistral",
        opening=(Special("<s>"), *asking),
        asking=asking,
        answer=(" ", Slot.MESSAGE, end),
        stop=end,
        image_parts_text=False,
        image_is_token=True,
        is_verbatim=True,
    )


def _llamafactory_vicuna() -> Template:
    """Return LLaMA-Factory's template, which encodes the system text, every question and every answer apart."""
    end = Special("</s>")
    asking: tuple[Part, ...] = (Slot.START, "USER: ", Slot.MESSAGE, " ASSISTANT:")
    return Template(
        "llamafactory_vicuna",
        "LLaMA-Factory llava, vicuna",
        opening=(Slot.START, Slot.SYSTEM, *asking),
        asking=asking,
        answer=(Slot.START, Slot.MESSAGE, end),
        stop=end,
        system=V1_SYSTEM,
        image_parts_text=False,
        image_is_token=True,
        is_verbatim=True,
    )


OTHERS: tuple[Template, ...] = (
    _chatml(),
    _gemma(),
    _megatron_mistral(),
    replace(_chatml(), name="megatron_qwen2", origin="Megatron-LM qwen2p0", image_is_token=True, is_verbatim=True),
    _llamafactory_vicuna(),
)
"""Every template of this file."""
