"""Language models, vision towers and projectors of published sizes: the branches recipes are put together from.

Each function returns a fresh Fiddle config, so a recipe can take one, change it, and leave other recipes alone:

    recipe = llava.finetune("13b")
    recipe.model.vision = parts.clip_vit_large(image_size=224)
"""

from typing import Literal

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
from neva_recipes.families.published import CLIP_TINY, CLIP_VIT_LARGE, LLAMA_SHAPES, LlamaSize

__all__ = [
    "LlamaSize",
    "clip_tiny",
    "clip_vit_large",
    "from_huggingface",
    "llama",
    "projector",
    "tower_from_huggingface",
]


def llama(size: LlamaSize, from_pretrained: str | None = None) -> Draft[LanguageConfig]:
    """Return a language model of the Llama-2 family.

    7b and 13b have the shapes of Llama-2 and of the models made from it (Vicuna-1.5, Llama-2-chat). tiny learns a
    few hundred short sentences in a minute on a laptop; its vocab_size is a placeholder: unless it is set, a launch
    takes that of the run it starts from, or else of the tokenizer.

    Args:
        size: 7b, 13b or tiny.
        from_pretrained: Where the weights come from; `None` means random, `random` that this is meant.
    """
    language = config(LanguageConfig, family=LLAMA.name, **LLAMA_SHAPES[size], from_pretrained=from_pretrained)
    if size == "tiny":
        with value_from(PLACEHOLDER):
            language.vocab_size = language.vocab_size
    return language


def clip_vit_large(image_size: Literal[224, 336]) -> Draft[VisionConfig]:
    """Return OpenAI's CLIP ViT-L/14: 24 layers of width 1024, 256 (224 pixels) or 576 (336 pixels) patch tokens."""
    # Its other sizes are the defaults of the class, and shown as such.
    return config(VisionConfig, image_size=image_size, from_pretrained=CLIP_VIT_LARGE[image_size])


def clip_tiny() -> Draft[VisionConfig]:
    """Return a randomly initialised CLIP tower for 56-pixel images: 4 layers of width 128, 16 patch tokens."""
    return config(VisionConfig, **CLIP_TINY, from_pretrained=RANDOM)


def from_huggingface(source: str) -> Draft[LanguageConfig]:
    """Return the language model of a Hugging Face directory: its family, its sizes and its weights.

    Args:
        source: The directory, which may hold a LLaVA, or a name on the hub, of which config.json is fetched.

    Raises:
        CheckpointError: There is no such directory, or its language model is not understood.
    """
    from neva_recipes.plan.huggingface import language_fields  # the plan is not imported by those who list recipes

    return config(LanguageConfig, **language_fields(source))


def tower_from_huggingface(source: str) -> Draft[VisionConfig]:
    """Return the vision tower of a Hugging Face directory: its family, its sizes and its weights.

    Args:
        source: The directory of a tower, of a model of images and texts, or of a LLaVA; or a name on the hub, of which
            config.json is fetched.

    Raises:
        CheckpointError: There is no such directory, or its vision tower is not understood.
    """
    from neva_recipes.plan.huggingface import tower_fields

    return config(VisionConfig, **tower_fields(source))


def projector(mm_projector_type: str) -> Draft[ProjectorConfig]:
    """Return a projector, linear or mlpNx_gelu, with random weights."""
    return config(ProjectorConfig, mm_projector_type=mm_projector_type)
