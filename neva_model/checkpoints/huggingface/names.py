"""What the weights are called: Megatron-Core's and this project's names against those of Hugging Face directories.

A directory names its tensors by the class that saved it, so each part has several spellings; which one a directory
uses is told by one tensor that every spelling has.
"""

import re
from collections.abc import Container
from dataclasses import dataclass

__all__ = [
    "LANGUAGE_SPELLINGS",
    "LanguageSpelling",
    "PROJECTOR_SPELLINGS",
    "VISION_SPELLINGS",
    "find_projector_spelling",
    "llama_names",
    "projector_names",
]

_LAYER = {
    "input_layernorm.weight": ("input_layernorm.weight",),
    "self_attention.linear_qkv.weight": (
        "self_attn.q_proj.weight",
        "self_attn.k_proj.weight",
        "self_attn.v_proj.weight",
    ),
    "self_attention.linear_proj.weight": ("self_attn.o_proj.weight",),
    "pre_mlp_layernorm.weight": ("post_attention_layernorm.weight",),
    "mlp.linear_fc1.weight": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    "mlp.linear_fc2.weight": ("mlp.down_proj.weight",),
    # Transformer Engine keeps the norms inside the linear layers that follow them.
    "self_attention.linear_qkv.layer_norm_weight": ("input_layernorm.weight",),
    "mlp.linear_fc1.layer_norm_weight": ("post_attention_layernorm.weight",),
}


@dataclass(frozen=True)
class LanguageSpelling:
    """How a directory spells a Llama model.

    Attributes:
        body: Prefix of everything but the output layer.
        head: Name of the output layer's weight.
    """

    body: str
    head: str


LANGUAGE_SPELLINGS = (
    LanguageSpelling("model.", "lm_head.weight"),  # LlamaForCausalLM, and the original LLaVA
    LanguageSpelling("language_model.model.", "language_model.lm_head.weight"),  # LlavaForConditionalGeneration, saved
    LanguageSpelling("model.language_model.", "lm_head.weight"),  # LlavaForConditionalGeneration, in memory
)

VISION_SPELLINGS = (
    "",  # CLIPVisionModel and SiglipVisionModel of transformers 5
    "vision_model.",  # the same of transformers 4, and whole CLIP models
    "vision_tower.",  # LlavaForConditionalGeneration saved by transformers 5
    "vision_tower.vision_model.",  # LlavaForConditionalGeneration saved by transformers 4
    "model.vision_tower.",
    "model.vision_tower.vision_model.",
    "model.vision_tower.vision_tower.vision_model.",  # the original LLaVA, when it trained the tower
)

PROJECTOR_SPELLINGS = (
    "multi_modal_projector.",  # LlavaForConditionalGeneration
    "model.multi_modal_projector.",
    "model.mm_projector.",  # the original LLaVA
    "mm_projector.",
)


def llama_names(name: str, spelling: LanguageSpelling) -> tuple[str, ...]:
    """Return the tensors that make up one of Core's parameters.

    Args:
        name: Core's name, with layers counted over the whole model.
        spelling: How the directory spells a Llama model.
    """
    if name == "embedding.word_embeddings.weight":
        return (f"{spelling.body}embed_tokens.weight",)
    if name == "decoder.final_layernorm.weight":
        return (f"{spelling.body}norm.weight",)
    if name == "output_layer.weight":
        return (spelling.head,)
    match = re.fullmatch(r"decoder\.layers\.(\d+)\.(.+)", name)
    assert match is not None, name
    return tuple(f"{spelling.body}layers.{match[1]}.{part}" for part in _LAYER[match[2]])


def projector_names(spelling: str, number: int, layers: int) -> tuple[str, str]:
    """Return the names of the weight and the bias of one linear layer of a projector.

    Args:
        spelling: Prefix of the projector's tensors.
        number: Which of its linear layers, from 0.
        layers: How many there are.
    """
    if spelling.endswith("multi_modal_projector."):
        layer = f"linear_{number + 1}."
    else:
        # The original LLaVA numbers the members of a Sequential, GELUs included; a single layer stands alone.
        layer = "" if layers == 1 else f"{2 * number}."
    return f"{spelling}{layer}weight", f"{spelling}{layer}bias"


def find_projector_spelling(names: Container[str]) -> str | None:
    """Return the spelling of the projector in a directory, or none where there is no projector."""
    for spelling in PROJECTOR_SPELLINGS:
        if any(f"{spelling}{layer}weight" in names for layer in ("linear_1.", "0.", "")):
            return spelling
    return None
