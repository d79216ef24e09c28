"""Opens a model that a user names: a run, a checkpoint, or a Hugging Face directory."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from neva_model.checkpoints.huggingface import is_huggingface_directory
from neva_model.checkpoints.huggingface.pretrained import load_pretrained
from neva_model.checkpoints.huggingface.recipe import recipe_from_huggingface
from neva_model.checkpoints.huggingface.training import directory_trained_with, recipe_trained_with
from neva_model.checkpoints.load import LoadedModel, divided, initialize_single_process, load_model, own_share
from neva_model.data.images.reading import ImageProcessor
from neva_model.model import NevaModel
from neva_model.tokenizers import Tokenizer, load_recipe_tokenizer, load_tokenizer
from neva_recipes.config import ConvTemplate, LlavaDataConfig, ParallelConfig, Recipe, UserError
from neva_recipes.families import image_length, language_family
from neva_recipes.plan.huggingface import open_directory
from neva_recipes.prompts.encoding import check_template
from neva_recipes.prompts.templates import Template, get_template
from neva_recipes.storage.exports import TrainedWith
from neva_recipes.terminal import tell

__all__ = ["OpenModel", "open_model", "tell_of_template"]

_USUAL_TEMPLATE = "v1"
"""Template for a Hugging Face directory that names none and whose family has none; most LLaVA models use it."""

_WHOLE = ParallelConfig()
"""The layout of a model that is whole in one process."""


@dataclass(frozen=True)
class OpenModel:
    """A model ready to answer, with everything that turns text and images into its input.

    Attributes:
        model: The model, or this rank's share of it, in evaluation mode.
        recipe: The recipe it was trained with, or the one made from its directory.
        tokenizer: Its tokenizer.
        template: Its conversation template; `None` for a model that only continues text.
        image_processor: Preprocesses its images; `None` for a text-only model.
        source: The checkpoint or directory it was loaded from.
        trained: How it was trained; `None` for a directory that does not say.
    """

    model: NevaModel
    recipe: Recipe
    tokenizer: Tokenizer
    template: Template | None
    image_processor: ImageProcessor | None
    source: Path
    trained: TrainedWith | None

    @property
    def tokens_per_image(self) -> int:
        """Sequence positions of one image; 0 for a text-only model."""
        vision = self.recipe.model.vision
        return image_length(vision) if vision is not None else 0


def open_model(
    path: str | Path,
    conv_template: ConvTemplate | None = None,
    tokenizer: str | None = None,
    parallel: ParallelConfig = _WHOLE,
) -> OpenModel:
    """Load a model with its tokenizer, template and image processor.

    Args:
        path: A run directory (for its newest checkpoint), a checkpoint, or a Hugging Face directory.
        conv_template: Template to use. `None` means the one it was trained with; if a Hugging Face directory does not
            say, that of its family of language models, or v1. For a text-only model `plain` means to continue text, as
            does `None` after training on plain text.
        tokenizer: Where the tokenizer of the training is now; `None` means where it was. Not for a Hugging Face
            directory, which has its own.
        parallel: How the model is divided over the processes, whose groups then exist already.

    Raises:
        UserError: The model, its tokenizer or its image processor cannot be used.
    """
    if is_huggingface_directory(Path(path)):
        if tokenizer is not None:
            raise UserError(f"--tokenizer={tokenizer}: {path} is a Hugging Face directory, which has its own")
        # transformers also reads config.json for the tokenizer, and its error messages are different.
        open_directory(Path(path))
        # The tokenizer comes before the model, since it may have tokens without rows in the model.
        loaded = _load_huggingface(Path(path), load_tokenizer(str(path), vocab_size=None), parallel)
        words = load_recipe_tokenizer(loaded.recipe)
        trained = directory_trained_with(Path(path), loaded.recipe, words)
    else:
        loaded = load_model(path, tokenizer, parallel)
        words = loaded.words or load_recipe_tokenizer(loaded.recipe)
        trained = recipe_trained_with(loaded.recipe)
    recipe = loaded.recipe
    template = _template(recipe, conv_template, trained)
    if template is not None:
        check_template(template, words)
    processor = None
    if recipe.model.vision is not None and isinstance(recipe.data, LlavaDataConfig):
        processor = ImageProcessor(recipe.model.vision, recipe.data.image_aspect_ratio)
    return OpenModel(loaded.model, recipe, words, template, processor, loaded.source, trained)


def tell_of_template(opened: OpenModel, asked: ConvTemplate | None) -> None:
    """Print a note if questions do not reach a model as they did in its training, or may not.

    Args:
        opened: The model.
        asked: The template that the user named, if any.
    """
    source, template = opened.source, opened.template
    if template is None:
        return
    if opened.trained is None:
        if asked is None:
            text = "" if opened.recipe.model.vision is not None else ", and --conv-template=plain continues text"
            told = f"{source} does not tell which template it was trained with: {template.name} is taken"
            tell("note", f"{told}; --conv-template=NAME takes another one{text}")
        return
    trained = opened.trained.conv_template
    if template.name != trained:
        how = "plain text, without a template" if trained is None else f"the template {trained}"
        tell("note", f"{source} was trained with {how}: answers to questions in {template.name} may be poor")
    elif template.question is None:
        tell(
            "note",
            f"{source} was trained with the template {trained}, as in stage 1: it describes an image, "
            "whatever it is asked; stage 2 teaches it to answer (docs/inference.md)",
        )


def _template(recipe: Recipe, asked: ConvTemplate | None, trained: TrainedWith | None) -> Template | None:
    usual = language_family(recipe.model.language).conv_template or _USUAL_TEMPLATE
    name = asked or (trained.conv_template if trained is not None else usual)
    if name is None or (name == "plain" and not isinstance(recipe.data, LlavaDataConfig)):
        return None
    return get_template(cast(ConvTemplate, name))


def _load_huggingface(directory: Path, tokenizer: Tokenizer, parallel: ParallelConfig) -> LoadedModel:
    initialize_single_process()
    recipe = divided(recipe_from_huggingface(directory, tokens=tokenizer.vocab_size), parallel)
    model = own_share(recipe)
    load_pretrained(model, recipe, tokenizer)
    if torch.cuda.is_available():
        model.to(device="cuda", dtype=model.config.params_dtype)
    model.eval()
    return LoadedModel(model, recipe, str(directory), None, directory)
