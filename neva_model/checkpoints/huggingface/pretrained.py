"""Loads the parts of a model from Hugging Face directories; each rank reads only what it holds."""

from pathlib import Path

import torch
from megatron.core import parallel_state

from neva_model.checkpoints.huggingface.files import WeightFiles
from neva_model.checkpoints.huggingface.language import LanguageReader
from neva_model.checkpoints.huggingface.source import find_directory
from neva_model.model import NevaModel, global_parameters
from neva_model.tokenizers import Tokenizer
from neva_recipes.config import CheckpointError, ModelConfig, Recipe
from neva_recipes.plan.findings import shown_fields
from neva_recipes.plan.huggingface import Directory, compare_part, open_directory, projector_names, vocabulary_rows
from neva_recipes.plan.origins.checkpoints import PARTS

__all__ = ["load_pretrained"]


def load_pretrained(model: NevaModel, recipe: Recipe, tokenizer: Tokenizer | None = None) -> list[str]:
    """Fill the parts of a freshly built model that start from a Hugging Face directory or hub name.

    A directory may hold only the part, or a whole LLaVA model from which the part is taken. Parts whose
    `from_pretrained` is one of our own runs or checkpoints are left alone. Every rank must call this.

    Args:
        model: This rank's share of the model.
        recipe: Names the source of each part.
        tokenizer: The model's tokenizer, which may have tokens that the directory lacks; `None` leaves it unchecked.

    Returns:
        Lines that say what was loaded from where.

    Raises:
        CheckpointError: A source is missing, damaged, differs in shape from the recipe, or contains something that is
            not understood.
    """
    lines = []
    for part in PARTS:
        config = getattr(recipe.model, part)
        path = find_directory(config.source) if config and config.source else None
        if path is None:
            continue
        directory = open_directory(path, thorough=True)
        _require_same(directory, recipe, part)
        files = WeightFiles(directory)
        if part == "language":
            detail = _load_language(model, recipe.model, directory, files, tokenizer)
        else:
            detail = ""
            (_load_vision if part == "vision" else _load_projector)(model, recipe.model, directory, files)
        kind = directory.configuration.architecture if directory.configuration is not None else "mm_projector"
        lines.append(f"{part}: loaded from {path} ({kind}, {files.description}{detail})")
    return lines


def _require_same(directory: Directory, recipe: Recipe, part: str) -> None:
    for mismatch in compare_part(directory, recipe.model, part):
        fields = shown_fields(recipe, mismatch.field) if mismatch.field else {}
        held = "".join(f", but the recipe has {path}={value}" for path, value in fields.items())
        raise CheckpointError(f"{directory.path}: {mismatch.message}{held}")


@torch.no_grad()
def _load_language(
    model: NevaModel, config: ModelConfig, directory: Directory, files: WeightFiles, tokenizer: Tokenizer | None
) -> str:
    configuration, spelling = directory.configuration, directory.language_spelling
    assert configuration is not None and spelling is not None
    there = vocabulary_rows(configuration)
    assert there is not None
    tokens, wanted = tokenizer.vocab_size if tokenizer is not None else None, config.language.vocab_size
    if not there.takes(wanted, tokens, use_im_start_end=config.use_im_start_end):
        raise CheckpointError(
            f"{directory.path}: vocab_size is {there.rows}, {there.text} of them words, but the recipe has "
            f"model.language.vocab_size={wanted} with use_im_start_end={str(config.use_im_start_end).lower()}"
        )
    reader = LanguageReader(
        files,
        spelling,
        config.language,
        vocabulary_rows=there.rows,
        new_tokens=tokenizer.new_tokens if tokenizer is not None else range(0),
        rank=parallel_state.get_tensor_model_parallel_rank(),
        size=parallel_state.get_tensor_model_parallel_world_size(),
    )
    for name, parameter in global_parameters(model.language):
        parameter.copy_(reader.read(name))
    return f", {len(reader.grown)} new tokens start as the mean of the others" if reader.grown else ""


@torch.no_grad()
def _load_vision(model: NevaModel, _: ModelConfig, directory: Directory, files: WeightFiles) -> None:
    for name, weight in model.vision.state_dict().items() if model.vision is not None else ():
        weight.copy_(files.read(directory.vision_tensor(name)))


@torch.no_grad()
def _load_projector(model: NevaModel, config: ModelConfig, directory: Directory, files: WeightFiles) -> None:
    assert config.projector is not None and directory.projector_spelling is not None
    spelling, layers = directory.projector_spelling, config.projector.num_layers
    if layers == 1 and spelling.endswith("multi_modal_projector."):
        _require_identity(files, spelling, directory.path)
    if model.projector is not None:
        linears = [module for module in model.projector.modules() if isinstance(module, torch.nn.Linear)]
        for number, linear in enumerate(linears):
            weight, bias = projector_names(spelling, number, layers)
            linear.weight.copy_(files.read(weight))
            linear.bias.copy_(files.read(bias))


def _require_identity(files: WeightFiles, spelling: str, path: Path) -> None:
    """Check that a projector's second layer is an identity, since that is how a linear projector is exported."""
    second, bias = projector_names(spelling, 1, 2)
    identity = files.read(second)
    if not torch.equal(identity, torch.eye(len(identity), dtype=identity.dtype)) or files.read(bias).any():
        raise CheckpointError(
            f"{path}: its projector has two layers with nothing between them, and the second is not an identity, but "
            "the recipe has model.projector.mm_projector_type=linear"
        )
