"""The tokenizer, image processor and chat template that go with exported weights."""

from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from transformers import LlavaImageProcessorPil, LlavaProcessor

from neva_model.checkpoints.huggingface.chat_template import IMAGE_TOKEN, chat_template
from neva_model.data.images import ImageProcessor
from neva_model.tokenizers import Tokenizer, load_tokenizer
from neva_recipes.config import CheckpointError, LlavaDataConfig, Recipe, VisionConfig
from neva_recipes.prompts.templates import Template, get_template

__all__ = ["ExportedTokenizer", "load_export_tokenizer", "write_processor"]


class ExportedTokenizer:
    """The tokenizer of an export, with the tokens that the exported files need to know about.

    Attributes:
        tokenizer: The tokenizer.
        template: The recipe's conversation template; none for a text-only model.
        image_token_id: Row of `<image>`; none for a text-only model.
        stop_ids: Tokens that end an answer.
    """

    def __init__(self, tokenizer: Tokenizer, template: Template | None) -> None:
        """Add `<image>` to the tokenizer of a vision-language model."""
        self.tokenizer = tokenizer
        self.template = template
        self.image_token_id: int | None = None
        if template is not None:
            token = AddedToken(IMAGE_TOKEN, normalized=False, special=True)
            tokenizer.hf.add_tokens([token], special_tokens=True)
            self.image_token_id = tokenizer.hf.convert_tokens_to_ids(IMAGE_TOKEN)
        stops = [tokenizer.special_id(template.stop.token)] if template is not None and template.stop else []
        self.stop_ids = list(dict.fromkeys([*stops, *([] if tokenizer.eos_id is None else [tokenizer.eos_id])]))


def load_export_tokenizer(recipe: Recipe, tokenizer: str) -> ExportedTokenizer:
    """Load a recipe's tokenizer for an export.

    Args:
        recipe: The recipe.
        tokenizer: Directory, hub name or SentencePiece file.

    Raises:
        DataError: The tokenizer cannot be loaded, or is larger than the model's vocabulary.
    """
    loaded = load_tokenizer(
        tokenizer, vocab_size=recipe.model.language.vocab_size, use_im_start_end=recipe.model.use_im_start_end
    )
    template = get_template(recipe.data.conv_template) if isinstance(recipe.data, LlavaDataConfig) else None
    return ExportedTokenizer(loaded, template)


def write_processor(recipe: Recipe, exported: ExportedTokenizer, directory: Path) -> None:
    """Write tokenizer, image processor and chat template so that `AutoProcessor` loads them.

    Raises:
        DataError: The image processor that the recipe started from cannot be loaded.
    """
    exported.tokenizer.save_pretrained(directory)
    vision, data = recipe.model.vision, recipe.data
    if vision is None or not isinstance(data, LlavaDataConfig):
        return
    assert exported.template is not None
    exported.tokenizer.hf.chat_template = chat_template(exported.template, exported.tokenizer)
    image_processor = _image_processor(vision, pad=data.image_aspect_ratio == "pad")
    processor = LlavaProcessor(
        image_processor=image_processor,
        tokenizer=exported.tokenizer.hf,
        patch_size=vision.patch_size,
        vision_feature_select_strategy=feature_select_strategy(vision),
        num_additional_image_tokens=int(vision.has_class_token),
        chat_template=exported.tokenizer.hf.chat_template,
    )
    processor.save_pretrained(directory)
    # Also by itself, where older libraries look for it.
    image_processor.save_pretrained(directory)


def feature_select_strategy(vision: VisionConfig) -> str:
    """Return transformers' word for the tokens that are used: `default` leaves the first one out."""
    return "default" if vision.has_class_token and vision.vision_select_feature == "patch" else "full"


def _image_processor(vision: VisionConfig, *, pad: bool) -> Any:
    processor = ImageProcessor(vision, "square").hf
    if not pad:
        return processor
    if not vision.has_class_token:
        raise CheckpointError(
            "data.image_aspect_ratio=pad with model.vision.vision_model_type=siglip: "
            "transformers has no image processor that does this"
        )
    fields = ("size", "crop_size", "image_mean", "image_std", "resample", "rescale_factor")
    return LlavaImageProcessorPil(do_pad=True, **{field: getattr(processor, field) for field in fields})
