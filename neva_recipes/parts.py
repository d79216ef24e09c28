"""Language models, vision towers and projectors of published sizes: the branches recipes are put together from.

Each function returns a fresh Fiddle config, so a recipe can take one, change it, and leave other recipes alone:

    recipe = llava.finetune("13b")
    recipe.model.vision = parts.clip_vit_large(image_size=224)
"""

from typing import Literal, TypedDict

from neva_recipes.config import (
    PLACEHOLDER,
    RANDOM,
    Draft,
    LanguageConfig,
    ProjectorConfig,
    VisionConfig,
    config,
    value_from,
)
from neva_recipes.families.llama import LLAMA

__all__ = ["LlamaSize", "clip_tiny", "clip_vit_large", "llama", "projector"]

LlamaSize = Literal["7b", "13b", "tiny"]


class _Shape(TypedDict):
    num_layers: int
    hidden_size: int
    ffn_hidden_size: int
    num_attention_heads: int
    num_query_groups: int
    vocab_size: int
    max_position_embeddings: int


_LLAMA_SHAPES: dict[LlamaSize, _Shape] = {
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


def llama(size: LlamaSize, from_pretrained: str | None = None) -> Draft[LanguageConfig]:
    """Return a language model of the Llama-2 family.

    7b and 13b have the shapes of Llama-2 and of the models made from it (Vicuna-1.5, Llama-2-chat). tiny learns a
    few hundred short sentences in a minute on a laptop; its vocab_size is a placeholder: unless it is set, a launch
    takes that of the run it starts from, or else of the tokenizer.

    Args:
        size: 7b, 13b or tiny.
        from_pretrained: Where the weights come from; `None` means random, `random` that this is meant.
    """
    language = config(LanguageConfig, family=LLAMA.name, **_LLAMA_SHAPES[size], from_pretrained=from_pretrained)
    if size == "tiny":
        with value_from(PLACEHOLDER):
            language.vocab_size = language.vocab_size
    return language


def clip_vit_large(image_size: Literal[224, 336]) -> Draft[VisionConfig]:
    """Return OpenAI's CLIP ViT-L/14: 24 layers of width 1024, 256 (224 pixels) or 576 (336 pixels) patch tokens."""
    names = {224: "openai/clip-vit-large-patch14", 336: "openai/clip-vit-large-patch14-336"}
    return config(VisionConfig, image_size=image_size, from_pretrained=names[image_size])


def clip_tiny() -> Draft[VisionConfig]:
    """Return a randomly initialised CLIP tower for 56-pixel images: 4 layers of width 128, 16 patch tokens."""
    return config(
        VisionConfig,
        num_layers=4,
        hidden_size=128,
        ffn_hidden_size=512,
        num_attention_heads=4,
        image_size=56,
        from_pretrained=RANDOM,
    )


def projector(mm_projector_type: str) -> Draft[ProjectorConfig]:
    """Return a projector, linear or mlpNx_gelu, with random weights."""
    return config(ProjectorConfig, mm_projector_type=mm_projector_type)
