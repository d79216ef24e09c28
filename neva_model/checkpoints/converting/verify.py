"""Compares the logits of a model with those of what it was converted to."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlavaForConditionalGeneration
from transformers.utils import logging

from neva_model.checkpoints.huggingface import is_huggingface_directory
from neva_model.checkpoints.huggingface.original import TOWER
from neva_model.checkpoints.huggingface.pretrained import load_pretrained
from neva_model.checkpoints.information import read_information, saved_recipe
from neva_model.checkpoints.load import build_saved, initialize_single_process
from neva_model.model import NevaModel, build_model
from neva_recipes.config import CheckpointError, PrecisionConfig, Recipe
from neva_recipes.families import image_length
from neva_recipes.plan.huggingface import open_directory, tower_directory
from neva_recipes.prompts.encoding import IMAGE_TOKEN_INDEX

__all__ = ["largest_difference"]

_TEXT = 64
"""Tokens of text that are compared."""

_TOLERANCE = 1e-4
"""Largest difference, relative to the largest logit if that is above one: sums are rounded differently."""

_MERGED_TOLERANCE = 0.03
"""The same where adapters were merged into weights of 16 bits, each of which is rounded once more by up to 1 / 512."""

_FP32 = PrecisionConfig(precision="fp32")


def largest_difference(
    source: Path, recipe: Recipe, folder: Path, target: Path, dtype: torch.dtype | None
) -> tuple[float, float]:
    """Return by how much the logits of two models differ at most, and the largest logit; both in fp32.

    What transformers has a class for is computed by transformers, so that the sides are independent of each other.

    Args:
        source: A checkpoint or directory.
        recipe: Its recipe.
        folder: What it has been converted to.
        target: The path that the folder will have, for messages.
        dtype: The type that the weights of a checkpoint were rounded to; `None` if they kept their own.

    Raises:
        CheckpointError: They differ by more than rounding.
    """
    initialize_single_process()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    inputs = _Inputs(recipe)
    ours = _logits(source, recipe, inputs, dtype)
    theirs = _logits(folder, recipe, inputs, None)
    rows = min(ours.shape[-1], theirs.shape[-1], recipe.model.language.vocab_size)
    difference = float((ours[..., :rows] - theirs[..., :rows]).abs().max())
    largest = float(ours[..., :rows].abs().max())
    is_rounded = recipe.model.has_adapters and dtype in (torch.bfloat16, torch.float16)
    tolerance = _MERGED_TOLERANCE if is_rounded else _TOLERANCE
    if not difference <= tolerance * max(1.0, largest):  # neither is true of what is no number
        raise CheckpointError(
            f"{target}: is not written: its logits differ from those of {source} by up to {difference:.2g}, "
            f"the largest of which is {largest:.2g}"
        )
    return difference, largest


class _Inputs:
    """Random tokens, with an image between them if the model sees."""

    def __init__(self, recipe: Recipe) -> None:
        generator = torch.Generator().manual_seed(0)
        language, vision = recipe.model.language, recipe.model.vision
        # Of a LLaVA the last rows may be no words.
        words = max(language.vocab_size // 2, 1) if vision is not None else language.vocab_size
        image = image_length(vision) if vision is not None else 0
        text = max(min(_TEXT, language.longest_sequence - image), 2)
        self.tokens = torch.randint(0, words, (1, text + image), generator=generator)
        self.pixels: torch.Tensor | None = None
        if vision is not None:
            self.tokens[:, text // 2 : text // 2 + image] = IMAGE_TOKEN_INDEX
            side = vision.image_size
            self.pixels = torch.randn(1, 3, side, side, generator=generator)


@torch.no_grad()
def _logits(path: Path, recipe: Recipe, inputs: _Inputs, dtype: torch.dtype | None) -> torch.Tensor:
    if not is_huggingface_directory(path):
        information, saved = read_information(path), dataclasses.replace(saved_recipe(path), precision=_FP32)
        model, _ = build_saved(path, saved, information)
        if dtype is not None:  # averaged weights are kept in fp32, whatever is written of them
            for weight in model.parameters():
                weight.copy_(weight.to(dtype))
        return _ours(model, inputs)
    told = open_directory(path).configuration
    assert told is not None
    if told.is_original or (told.family is not None and told.family.exported_as is not None):
        return _ours(_imported(path, recipe), inputs)
    cls: Any = AutoModelForCausalLM if told.vision is None else LlavaForConditionalGeneration
    model = cls.from_pretrained(path, dtype=torch.float32, attn_implementation="sdpa", local_files_only=True).eval()
    tokens = inputs.tokens
    if inputs.pixels is None:
        return torch.as_tensor(model(input_ids=tokens).logits)
    assert told.image_token_index is not None
    tokens = tokens.where(tokens != IMAGE_TOKEN_INDEX, told.image_token_index)
    return torch.as_tensor(model(input_ids=tokens, pixel_values=inputs.pixels).logits)


def _ours(model: NevaModel, inputs: _Inputs) -> torch.Tensor:
    device = next(model.parameters()).device
    positions = torch.arange(inputs.tokens.shape[1], device=device)[None]
    pixels = inputs.pixels.to(device) if inputs.pixels is not None else None
    logits: torch.Tensor = model(inputs.tokens.to(device), positions, pixels)
    return logits.float().cpu()


def _imported(path: Path, recipe: Recipe) -> NevaModel:
    """Return the model of a directory that transformers has no class for."""
    model = recipe.model
    parts: dict[str, Any] = {"language": dataclasses.replace(model.language, from_pretrained=str(path))}
    if model.vision is not None and model.projector is not None:
        parts["projector"] = dataclasses.replace(model.projector, from_pretrained=str(path))
        opened, inside = open_directory(path), path / TOWER
        told = opened.configuration
        elsewhere = tower_directory(told.tower_source, weights=True) if told is not None else None
        named = elsewhere if elsewhere is not None else told.tower_source if told is not None else None
        tower = path if opened.vision_spelling is not None else inside if inside.is_dir() else named
        parts["vision"] = dataclasses.replace(model.vision, from_pretrained=str(tower))
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(model, **parts), precision=_FP32)
    built = build_model(recipe, pre_process=True, post_process=True)
    load_pretrained(built, recipe)
    return built.eval()
