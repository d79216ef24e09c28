"""The sizes that the built-in recipes come in, and the published models of these sizes by their names on the hub."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypedDict

__all__ = [
    "CLIP_LARGE",
    "CLIP_TINY",
    "CLIP_VIT_LARGE",
    "DINOV2_TOWERS",
    "LLAMA_2",
    "LLAMA_2_CHAT",
    "LLAMA_SHAPES",
    "SIGLIP_TOWERS",
    "VICUNA",
    "LlamaShape",
    "LlamaSize",
    "NevaSize",
    "TowerShape",
    "hub_shape",
    "recipe_sizes",
]

LlamaSize = Literal["7b", "13b", "tiny"]

NevaSize = Literal["7b", "13b"]


class LlamaShape(TypedDict):
    """Fields of `LanguageConfig` that a size decides."""

    num_layers: int
    hidden_size: int
    ffn_hidden_size: int
    num_attention_heads: int
    num_query_groups: int
    vocab_size: int
    max_position_embeddings: int


class TowerShape(TypedDict):
    """Fields of `VisionConfig` that a size decides."""

    num_layers: int
    hidden_size: int
    ffn_hidden_size: int
    num_attention_heads: int
    image_size: int


CLIP_TINY: TowerShape = {
    "num_layers": 4,
    "hidden_size": 128,
    "ffn_hidden_size": 512,
    "num_attention_heads": 4,
    "image_size": 56,
}

CLIP_LARGE: TowerShape = {
    "num_layers": 24,
    "hidden_size": 1024,
    "ffn_hidden_size": 4096,
    "num_attention_heads": 16,
    "image_size": 336,
}

LLAMA_SHAPES: dict[LlamaSize, LlamaShape] = {
    "tiny": {
        "num_layers": 4,
        "hidden_size": 128,
        "ffn_hidden_size": 384,
        "num_attention_heads": 4,
        "num_query_groups": 4,
        "vocab_size": 512,
        "max_position_embeddings": 512,
    },
    "7b": {
        "num_layers": 32,
        "hidden_size": 4096,
        "ffn_hidden_size": 11008,
        "num_attention_heads": 32,
        "num_query_groups": 32,
        "vocab_size": 32000,
        "max_position_embeddings": 4096,
    },
    "13b": {
        "num_layers": 40,
        "hidden_size": 5120,
        "ffn_hidden_size": 13824,
        "num_attention_heads": 40,
        "num_query_groups": 40,
        "vocab_size": 32000,
        "max_position_embeddings": 4096,
    },
}

VICUNA: dict[NevaSize, str] = {"7b": "lmsys/vicuna-7b-v1.5", "13b": "lmsys/vicuna-13b-v1.5"}

LLAMA_2: dict[NevaSize, str] = {"7b": "meta-llama/Llama-2-7b-hf", "13b": "meta-llama/Llama-2-13b-hf"}

LLAMA_2_CHAT: dict[NevaSize, str] = {
    "7b": "meta-llama/Llama-2-7b-chat-hf",
    "13b": "meta-llama/Llama-2-13b-chat-hf",
}

CLIP_VIT_LARGE: dict[Literal[224, 336], str] = {
    224: "openai/clip-vit-large-patch14",
    336: "openai/clip-vit-large-patch14-336",
}
"""By the side of the images, in pixels."""

_SIGLIP_SHAPES: dict[str, tuple[int, int, int, int]] = {
    "base": (12, 768, 3072, 12),
    "large": (24, 1024, 4096, 16),
    "so400m": (27, 1152, 4304, 16),
    "giant-opt": (40, 1536, 6144, 16),
}
"""Layers, width, width of the feed-forward layers, and heads."""

_SIGLIP_SIDES: dict[str, tuple[int, ...]] = {
    "siglip-base-patch16": (224, 256, 384, 512),
    "siglip-large-patch16": (256, 384),
    "siglip-so400m-patch14": (224, 384),
    "siglip2-base-patch16": (224, 256, 384, 512),
    "siglip2-base-patch32": (256,),
    "siglip2-large-patch16": (256, 384, 512),
    "siglip2-so400m-patch14": (224, 384),
    "siglip2-so400m-patch16": (256, 384, 512),
    "siglip2-giant-opt-patch16": (256, 384),
}
"""Sides of the images, in pixels, by the beginning of the name."""


def _siglip(name: str, side: int) -> dict[str, Any]:
    """Return the fields of a tower by the beginning of its name, such as siglip2-large-patch16."""
    rest, _, patch = name.rpartition("-patch")
    layers, hidden, ffn, heads = _SIGLIP_SHAPES[rest.partition("-")[2]]
    return {
        "vision_model_type": "siglip",
        "num_layers": layers,
        "hidden_size": hidden,
        "ffn_hidden_size": ffn,
        "num_attention_heads": heads,
        "image_size": side,
        "patch_size": int(patch),
        "hidden_act": "gelu_pytorch_tanh",
        "layernorm_epsilon": 1e-6,
    }


SIGLIP_TOWERS: dict[str, dict[str, Any]] = {
    f"google/{name}-{side}": _siglip(name, side) for name, sides in _SIGLIP_SIDES.items() for side in sides
}
"""Fields of `VisionConfig`, by the names of SigLIP's and SigLIP 2's towers of fixed resolution on the hub."""

DINOV2_TOWERS: dict[str, dict[str, Any]] = {
    f"facebook/dinov2-{size}": {
        "vision_model_type": "dinov2",
        "num_layers": layers,
        "hidden_size": hidden,
        "ffn_hidden_size": 4 * hidden,
        "num_attention_heads": hidden // 64,
        "position_image_size": 518,
        "patch_size": 14,
        "hidden_act": "gelu",
        "layernorm_epsilon": 1e-6,
    }
    for size, layers, hidden in (("small", 12, 384), ("base", 12, 768), ("large", 24, 1024))
}
"""Fields of `VisionConfig`, by the names of DINOv2's towers on the hub; a recipe chooses the size of the images."""

_SIZES: dict[str, Iterable[LlamaSize]] = {
    **dict.fromkeys(("gpt.pretrain", "gpt.continue_pretrain"), LLAMA_SHAPES),
    **dict.fromkeys(("llava.pretrain", "llava.finetune", "llava.lora", "llava.qlora"), LLAMA_SHAPES),
    **dict.fromkeys(("neva.pretrain", "neva.finetune"), LLAMA_2_CHAT),
}
"""By the name of the built-in recipe."""


def hub_shape(name: str) -> Mapping[str, Any] | None:
    """Return the fields that the weights of a published model decide, by its name on the hub; `None` if not known.

    Its vocabulary and its positions are left out, since a recipe may use fewer of them.
    """
    for language_models in (VICUNA, LLAMA_2, LLAMA_2_CHAT):
        for size, model in language_models.items():
            if model == name:
                free = ("vocab_size", "max_position_embeddings")
                return {field: value for field, value in LLAMA_SHAPES[size].items() if field not in free}
    if (tower := {**SIGLIP_TOWERS, **DINOV2_TOWERS}.get(name)) is not None:
        return tower
    return next(({**CLIP_LARGE, "image_size": side} for side, clip in CLIP_VIT_LARGE.items() if clip == name), None)


def recipe_sizes(recipe_name: str) -> dict[str, dict[str, Any]]:
    """Return the fields that each size of a built-in recipe decides, by dotted path; empty for another recipe.

    Args:
        recipe_name: Such as `llava.finetune`.
    """
    family = recipe_name.partition(".")[0]
    sizes: dict[str, dict[str, Any]] = {}
    for size in _SIZES.get(recipe_name, ()):
        sizes[size] = {f"model.language.{field}": value for field, value in LLAMA_SHAPES[size].items()}
        if family != "gpt":
            tower = CLIP_TINY if size == "tiny" else {**CLIP_LARGE, "image_size": 224 if family == "neva" else 336}
            sizes[size] |= {f"model.vision.{field}": value for field, value in tower.items()}
    return sizes
