"""How a model was trained, as far as it matters for questions: from a recipe or a Hugging Face directory."""

from pathlib import Path

from neva_model.checkpoints.huggingface.chat_template import chat_template
from neva_model.tokenizers import Tokenizer
from neva_recipes.config import LlavaDataConfig, Recipe
from neva_recipes.prompts.templates import TEMPLATES
from neva_recipes.storage.exports import DIGESTS_FILE, TrainedWith, exported_training

__all__ = ["directory_trained_with", "recipe_trained_with"]


def recipe_trained_with(recipe: Recipe) -> TrainedWith:
    """Return how the model of a recipe is trained."""
    return TrainedWith(recipe.data.conv_template if isinstance(recipe.data, LlavaDataConfig) else None)


def directory_trained_with(directory: Path, recipe: Recipe, tokenizer: Tokenizer) -> TrainedWith | None:
    """Return how the model of a Hugging Face directory was trained; `None` if the directory does not say.

    An export says so. An export of an older version does not, but it has the same chat template as today's exports, or
    none if its model was only trained on text.

    Args:
        directory: The directory.
        recipe: The recipe made from it.
        tokenizer: Its tokenizer.
    """
    told = exported_training(directory)
    if told is not None:
        # An export of a newer version may name a template that is unknown here.
        return told if told.conv_template is None or told.conv_template in TEMPLATES else None
    given = tokenizer.hf.chat_template
    if given is None:
        is_ours = recipe.model.vision is None and (directory / DIGESTS_FILE).is_file()
        return TrainedWith(None) if is_ours else None
    for name, template in TEMPLATES.items():
        if chat_template(template, tokenizer) == given:
            return TrainedWith(name)
    return None
