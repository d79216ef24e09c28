"""The lengths that samples are assumed to have if there is no data file."""

import math
from collections.abc import Iterator

from neva_recipes.config import LlavaDataConfig, Recipe
from neva_recipes.families import image_length
from neva_recipes.plan.cost.rows import SampleLength
from neva_recipes.prompts.extent import PromptExtent
from neva_recipes.prompts.templates import Slot, get_template

__all__ = ["CHARACTERS_PER_TOKEN", "assumed_samples", "estimate_tokens"]

CHARACTERS_PER_TOKEN = 4.0
"""For English text with vocabularies such as Llama's; a character outside ASCII counts as a token of its own."""

_CAPTION, _SHORTEST_CAPTION = 32, 8
"""Tokens of a caption, mean and least: blip_laion_cc_sbu_558k has about 608 tokens a sample, 576 of them the image."""

_CONVERSATION, _SHORTEST_CONVERSATION = 380, 20
"""Tokens of a sample's turns, mean and least: llava_v1_5_mix665k has about 1000 with the image and the v1 template."""

_QUANTILES = 200


def estimate_tokens(text: str) -> float:
    """Return about how many tokens a text takes."""
    ascii_characters = len(text) if text.isascii() else sum(character < "\x80" for character in text)
    return ascii_characters / CHARACTERS_PER_TOKEN + len(text) - ascii_characters


def assumed_samples(recipe: Recipe, data: LlavaDataConfig) -> tuple[list[SampleLength], str]:
    """Return samples as long as those of a published data set, each with an image, and a description of them.

    Lengths above the minimum are spread exponentially: of a few thousand, the longest is about nine times the mean.
    """
    captions = data.conv_template == "plain" or recipe.model.language.freeze
    mean, least = (_CAPTION, _SHORTEST_CAPTION) if captions else (_CONVERSATION, _SHORTEST_CONVERSATION)
    image = image_length(recipe.model.vision) if recipe.model.vision is not None else 0
    around = image + _template_tokens(data)
    samples = [
        SampleLength(PromptExtent(round(around + words), 1), round(words), has_image=image > 0)
        for words in _exponential(mean, least)
    ]
    kind = f"captions of {mean} tokens" if captions else f"conversations of {mean} tokens"
    return samples, f"{kind} and their prompt" + (", each with an image" if image else "")


def _exponential(mean: float, least: float) -> Iterator[float]:
    """Yield the quantiles of an exponential distribution above a minimum, scaled to have the mean."""
    quantiles = [-math.log(1 - (number + 0.5) / _QUANTILES) for number in range(_QUANTILES)]
    scale = (mean - least) * _QUANTILES / sum(quantiles)
    return (least + scale * quantile for quantile in quantiles)


def _template_tokens(data: LlavaDataConfig) -> int:
    template = get_template(data.conv_template)
    parts = [part for part in (*template.first_question, *template.answer) if not isinstance(part, Slot)]
    return round(sum(estimate_tokens(part) if isinstance(part, str) else 1 for part in parts)) + 1
