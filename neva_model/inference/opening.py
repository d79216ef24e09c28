"""Opening whatever a user points at: a run, a checkpoint, or a Hugging Face directory."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from neva_model.checkpoints.huggingface import is_huggingface_directory, load_pretrained
from neva_model.checkpoints.huggingface.recipe import recipe_from_huggingface
from neva_model.checkpoints.load import LoadedModel, initialize_single_process, load_model
from neva_model.data.images import ImageProcessor
from neva_model.model import NevaModel, build_model
from neva_model.tokenizers import Tokenizer, load_tokenizer
from neva_recipes.config import ConvTemplate, LlavaDataConfig, PrecisionConfig, Recipe
from neva_recipes.prompts.encoding import check_template
from neva_recipes.prompts.templates import Template, get_template

__all__ = ["OpenModel", "open_model"]


@dataclass(frozen=True)
class OpenModel:
    """A model ready to answer, with what turns words and images into its input.

    Attributes:
        model: The model, in evaluation mode.
        recipe: What it was trained with, or what its directory describes.
        tokenizer: Its tokenizer.
        template: Its conversation template; none for a model that plainly continues text.
        image_processor: Makes its images; none for a text-only model.
        source: The checkpoint or directory it came from.
    """

    model: NevaModel
    recipe: Recipe
    tokenizer: Tokenizer
    template: Template | None
    image_processor: ImageProcessor | None
    source: Path

    @property
    def tokens_per_image(self) -> int:
        """Sequence positions of one image; 0 for a text-only model."""
        vision = self.recipe.model.vision
        return vision.tokens_per_image if vision is not None else 0


def open_model(path: str | Path, conv_template: ConvTemplate | None = None) -> OpenModel:
    """Load a model with its tokenizer, template and image processor.

    Args:
        path: A run directory (its newest checkpoint is taken), a checkpoint, or a Hugging Face directory.
        conv_template: Template to use; none means the one it was trained with, v1 for a Hugging Face directory. For
            a text-only model `plain` means to continue text, as does none after training on plain text.

    Raises:
        UserError: The model, its tokenizer or its image processor cannot be used.
    """
    if is_huggingface_directory(Path(path)):
        conv_template = conv_template or "v1"
        loaded = _load_huggingface(Path(path), conv_template)
    else:
        loaded = load_model(path)
    recipe = loaded.recipe
    tokenizer = load_tokenizer(
        loaded.tokenizer,
        vocab_size=recipe.model.language.vocab_size,
        use_im_start_end=recipe.model.use_im_start_end,
    )
    template = _template(recipe, conv_template)
    if template is not None:
        check_template(template, tokenizer)
    processor = None
    if recipe.model.vision is not None and isinstance(recipe.data, LlavaDataConfig):
        processor = ImageProcessor(recipe.model.vision, recipe.data.image_aspect_ratio)
    return OpenModel(loaded.model, recipe, tokenizer, template, processor, loaded.source)


def _template(recipe: Recipe, asked: ConvTemplate | None) -> Template | None:
    if isinstance(recipe.data, LlavaDataConfig):
        return get_template(asked or recipe.data.conv_template)
    return None if asked in (None, "plain") else get_template(asked)


def _load_huggingface(directory: Path, conv_template: ConvTemplate) -> LoadedModel:
    recipe = recipe_from_huggingface(directory, conv_template)
    if not torch.cuda.is_available():
        recipe = dataclasses.replace(recipe, precision=PrecisionConfig(precision="fp32"))
    initialize_single_process()
    model = build_model(recipe, pre_process=True, post_process=True)
    load_pretrained(model, recipe)
    if torch.cuda.is_available():
        model.to(device="cuda", dtype=model.config.params_dtype)
    model.eval()
    return LoadedModel(model, recipe, str(directory), directory)
