"""The templates of NeMo, which keeps an image in its place and strips nothing."""

from dataclasses import replace

from neva_recipes.prompts.templates._system_prompts import LLAVA_LLAMA_2_SYSTEM, NVGPT_LABELS, V1_SYSTEM
from neva_recipes.prompts.templates._template import Part, Slot, Special, Template

__all__ = ["NEMO"]


def _nvgpt() -> Template:
    speaker, end_of_turn = Special("<extra_id_1>"), "\n"
    asking: tuple[Part, ...] = ("User\n", Slot.MESSAGE, end_of_turn, speaker, "Assistant\n", Special("<extra_id_2>"))
    asking += (Slot.LABEL, "\n")
    return Template(
        "nvgpt",
        "NeMo nvgpt",
        opening=(Special("<extra_id_0>"), "System\n", Slot.SYSTEM, speaker, *asking),
        asking=asking,
        answer=(Slot.MESSAGE, end_of_turn, speaker),
        stop=speaker,
        # The blank line belongs to NeMo's text; a record's own text gets no blank line.
        system=f"{V1_SYSTEM}\n\n",
        label=NVGPT_LABELS,
        image_parts_text=False,
        is_verbatim=True,
        keeps_empty_system=True,
        is_one_text=True,
    )


def _nv_dpo() -> Template:
    speaker = Special("<extra_id_1>")
    asking: tuple[Part, ...] = ("User\n", Slot.MESSAGE, "\n", speaker, "Assistant\n")
    return replace(
        _nvgpt(),
        name="nv_dpo",
        origin="NeMo nv_dpo",
        opening=(Special("<extra_id_0>"), "System\n", Slot.SYSTEM, speaker, *asking),
        asking=asking,
        system="\n",
        label=None,
    )


def _llama_3() -> Template:
    def header(role: str) -> tuple[Part, ...]:
        return Special("<|start_header_id|>"), role, Special("<|end_header_id|>"), "\n\n"

    end = Special("<|eot_id|>")
    asking = (*header("user"), Slot.MESSAGE, end, *header("assistant"))
    return Template(
        "llama_3",
        "NeMo llama_3",
        opening=(Special("<|begin_of_text|>"), *header("system"), Slot.SYSTEM, end, *asking),
        asking=asking,
        answer=(Slot.MESSAGE, end),
        stop=end,
        system=LLAVA_LLAMA_2_SYSTEM,
        image_parts_text=False,
        is_verbatim=True,
        keeps_empty_system=True,
    )


def _yi_34b() -> Template:
    start, end = Special("<|im_start|>"), Special("<|im_end|>")
    asking: tuple[Part, ...] = (start, "user\n", Slot.MESSAGE, end, "\n", start, "assistant\n")
    return Template(
        "yi_34b",
        "NeMo yi_34b",
        opening=asking,
        asking=asking,
        answer=(Slot.MESSAGE, end, "\n"),
        stop=end,
        image_parts_text=False,
        is_verbatim=True,
    )


NEMO: tuple[Template, ...] = (
    _nvgpt(),
    _llama_3(),
    # NeMo makes both prompts with one function.
    replace(_nvgpt(), name="nv_steerlm", origin="NeMo nv_steerlm"),
    _nv_dpo(),
    _yi_34b(),
)
"""Every template of NeMo."""
