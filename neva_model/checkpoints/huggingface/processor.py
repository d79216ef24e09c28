"""The tokenizer, image processor and chat template of exported weights."""

from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from transformers import LlavaImageProcessorPil, LlavaProcessor

from neva_model.checkpoints.huggingface.chat_template import IMAGE_TOKEN, chat_template
from neva_model.data.images.reading import ImageProcessor
from neva_model.tokenizers import Tokenizer, load_tokenizer
from neva_recipes.config import LlavaDataConfig, Recipe, VisionConfig
from neva_recipes.families import vision_family
from neva_recipes.prompts.templates import Template, get_template
from neva_recipes.prompts.tokens.vocabulary import next_id

__all__ = ["ExportedTokenizer", "load_export_tokenizer", "write_processor"]


class ExportedTokenizer:
    """The tokenizer of an export, with the tokens that the exported files need to know about.

    Attributes:
        tokenizer: The tokenizer.
        template: The recipe's conversation template; `None` for a text-only model.
        image_token_id: Row of `<image>`; `None` for a text-only model.
        pad_id: Token that pads the prompts of a batch.
        rows: Rows that the embedding needs, one for every token.
        stop_ids: Tokens that end an answer.
    """

    def __init__(self, tokenizer: Tokenizer, template: Template | None) -> None:
        """Add what transformers needs: `<image>` for a vision-language model, and how to make batches."""
        hf = tokenizer.hf
        self.tokenizer = tokenizer
        self.template = template
        self.image_token_id: int | None = None
        if template is not None:
            hf.add_tokens([AddedToken(IMAGE_TOKEN, normalized=False, special=True)], special_tokens=True)
            self.image_token_id = hf.convert_tokens_to_ids(IMAGE_TOKEN)
        # A token that text may contain must not become special; the attention mask tells what is padding.
        named = (hf.pad_token, hf.unk_token, hf.eos_token, hf.bos_token)
        hf.add_special_tokens({"pad_token": next((token for token in named if token is not None), "<pad>")})
        self.pad_id: int = hf.pad_token_id
        self.rows = next_id(hf.get_vocab())
        # Answers continue the prompts of a batch, so all prompts must end at the same position.
        hf.padding_side = "left"
        # The chat template writes the token that begins a chat. Nothing else may, since transformers adds it or not
        # depending on how a template is used. A text without a template begins as in training.
        hf.add_eos_token = False
        hf.add_bos_token = template is None and tokenizer.bos_id is not None
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
    vision, data = recipe.model.vision, recipe.data
    if vision is None or not isinstance(data, LlavaDataConfig):
        exported.tokenizer.save_pretrained(directory)
        return
    assert exported.template is not None
    exported.tokenizer.hf.chat_template = chat_template(exported.template, exported.tokenizer)
    image_processor = _image_processor(vision, pad=data.image_aspect_ratio == "pad")
    processor = LlavaProcessor(
        image_processor=image_processor,
        tokenizer=exported.tokenizer.hf,
        patch_size=vision.patch_size,
        vision_feature_select_strategy=feature_select_strategy(vision),
        num_additional_image_tokens=int(vision_family(vision).has_class_token),
        chat_template=exported.tokenizer.hf.chat_template,
    )
    processor.save_pretrained(directory)
    # It is also saved in a file of its own, where older libraries look for it.
    image_processor.save_pretrained(directory)
    # The processor has also saved its tokenizer, but without the settings that ours adds.
    exported.tokenizer.save_pretrained(directory)


def feature_select_strategy(vision: VisionConfig) -> str:
    """Return transformers' word for the tokens that are used: `default` skips the first one."""
    return "default" if vision_family(vision).skips_first(vision) else "full"


def _image_processor(vision: VisionConfig, *, pad: bool) -> Any:
    processor = ImageProcessor(vision, "square").hf
    if not pad:
        return processor
    fields = ("size", "image_mean", "image_std", "resample", "rescale_factor")
    crops = vision_family(vision).crops
    # A class for CLIP's images, which also pads those of a tower whose processor crops nothing.
    return LlavaImageProcessorPil(
        do_pad=True,
        do_center_crop=crops,
        crop_size=processor.crop_size if crops else processor.size,
        **{field: getattr(processor, field) for field in fields},
    )
