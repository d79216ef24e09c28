"""Loading the parts of a model from Hugging Face directories, each rank reading only what it holds."""

from pathlib import Path

import torch
from megatron.core import parallel_state

from neva_model.checkpoints.huggingface.configuration import (
    Configuration,
    compare_language,
    compare_projector,
    compare_vision,
    read_configuration,
)
from neva_model.checkpoints.huggingface.files import WeightFiles
from neva_model.checkpoints.huggingface.llama import LlamaReader
from neva_model.checkpoints.huggingface.names import (
    LANGUAGE_SPELLINGS,
    VISION_SPELLINGS,
    find_projector_spelling,
    projector_names,
)
from neva_model.checkpoints.huggingface.source import find_directory
from neva_model.model import NevaModel, global_parameters
from neva_recipes.config import CheckpointError, ModelConfig, Recipe

__all__ = ["load_pretrained"]


def load_pretrained(model: NevaModel, recipe: Recipe) -> list[str]:
    """Fill the parts of a freshly built model that start from a Hugging Face directory or hub name.

    A directory may hold just the part, or a whole LLaVA model of which the part is taken. Parts whose
    `from_pretrained` is one of our own runs or checkpoints are left alone. Every rank must call this.

    Args:
        model: This rank's share of the model.
        recipe: Where each part comes from.

    Returns:
        Lines that say what was loaded from where.

    Raises:
        CheckpointError: A source is missing, damaged, or of another shape than the recipe.
    """
    loaders = {"language": _load_language, "vision": _load_vision, "projector": _load_projector}
    lines = []
    for part, load in loaders.items():
        config = getattr(recipe.model, part)
        directory = find_directory(config.from_pretrained) if config and config.from_pretrained else None
        if directory is not None:
            detail = load(model, recipe.model, directory)
            lines.append(f"{part}: loaded from {directory} ({detail})")
    return lines


@torch.no_grad()
def _load_language(model: NevaModel, config: ModelConfig, directory: Path) -> str:
    configuration, files = read_configuration(directory), WeightFiles(directory)
    compare_language(configuration, config.language)
    used_rows = _used_vocabulary_rows(configuration, config)
    spelling = next((one for one in LANGUAGE_SPELLINGS if f"{one.body}embed_tokens.weight" in files.names), None)
    if spelling is None or configuration.text is None:
        raise CheckpointError(f"{directory}: has no tensor model.embed_tokens.weight, so no language model")
    reader = LlamaReader(
        files,
        spelling,
        config.language,
        vocabulary_rows=configuration.text.vocab_size,
        used_rows=used_rows,
        rank=parallel_state.get_tensor_model_parallel_rank(),
        size=parallel_state.get_tensor_model_parallel_world_size(),
    )
    for name, parameter in global_parameters(model.language):
        parameter.copy_(reader.read(name))
    grown = config.language.vocab_size - used_rows
    new_rows = f", {grown} new tokens start as the mean of the others" if grown else ""
    return f"{configuration.architecture}, {files.description}{new_rows}"


def _used_vocabulary_rows(configuration: Configuration, config: ModelConfig) -> int:
    """Return how many rows of a directory's vocabulary are tokens of the recipe."""
    assert configuration.text is not None
    wanted = config.language.vocab_size
    sizes = [configuration.text.vocab_size]
    if configuration.image_token_index is not None:
        # The rows from the image token on only serve transformers: the image token itself, and padding.
        sizes.append(configuration.image_token_index)
    for new in (0, 2) if config.use_im_start_end else (0,):
        if wanted - new in sizes:
            return wanted - new
    hint = f"; set model.language.vocab_size={sizes[-1] + 2 * config.use_im_start_end}"
    raise CheckpointError(
        f"{configuration.directory}: vocab_size is {configuration.text.vocab_size}, but the recipe has "
        f"model.language.vocab_size={wanted} with use_im_start_end={str(config.use_im_start_end).lower()}{hint}"
    )


@torch.no_grad()
def _load_vision(model: NevaModel, config: ModelConfig, directory: Path) -> str:
    assert config.vision is not None
    configuration, files = read_configuration(directory), WeightFiles(directory)
    compare_vision(configuration, config.vision)
    anchor = "embeddings.patch_embedding.weight"
    spelling = next((one for one in VISION_SPELLINGS if f"{one}{anchor}" in files.names), None)
    if spelling is None:
        raise CheckpointError(f"{directory}: has no tensor vision_model.{anchor}, so no vision tower")
    for name, weight in model.vision.state_dict().items() if model.vision is not None else ():
        weight.copy_(files.read(f"{spelling}{name}", tuple(weight.shape)))
    return f"{configuration.architecture}, {files.description}"


@torch.no_grad()
def _load_projector(model: NevaModel, config: ModelConfig, directory: Path) -> str:
    assert config.vision is not None and config.projector is not None
    files = WeightFiles(directory)
    # The original LLaVA's stage 1 may leave nothing but mm_projector.bin.
    configuration = read_configuration(directory) if (directory / "config.json").is_file() else None
    if configuration is not None:
        compare_projector(configuration, config.vision)
    spelling = find_projector_spelling(files.names)
    if spelling is None:
        raise CheckpointError(f"{directory}: has no tensor multi_modal_projector.linear_1.weight, so no projector")
    layers = config.projector.num_layers
    _check_projector(files, configuration, spelling, config)
    if model.projector is not None:
        linears = [module for module in model.projector.modules() if isinstance(module, torch.nn.Linear)]
        for number, linear in enumerate(linears):
            weight, bias = projector_names(spelling, number, layers)
            linear.weight.copy_(files.read(weight, tuple(linear.weight.shape)))
            linear.bias.copy_(files.read(bias, tuple(linear.bias.shape)))
    return f"{configuration.architecture if configuration else 'mm_projector'}, {files.description}"


def _check_projector(
    files: WeightFiles, configuration: Configuration | None, spelling: str, config: ModelConfig
) -> None:
    """Check that a directory's projector has as many layers as the recipe's, with GELU between them."""
    assert config.projector is not None
    kind = config.projector.mm_projector_type
    layers = config.projector.num_layers
    if not spelling.endswith("multi_modal_projector."):
        found = sum(projector_names(spelling, number, 9)[0] in files.names for number in range(9)) or 1
        if found != layers:
            raise CheckpointError(
                f"{files.directory}: its projector has {found} layers, but the recipe has "
                f"model.projector.mm_projector_type={kind}"
            )
        return
    activation = configuration.projector_hidden_act if configuration else "gelu"
    if (layers, activation) == (2, "gelu"):
        return
    if (layers, activation) == (1, "linear"):
        # A linear projector is exported with an identity as second layer.
        hidden = config.language.hidden_size
        second, bias = projector_names(spelling, 1, 2)
        identity = files.read(second, (hidden, hidden))
        if torch.equal(identity, torch.eye(hidden, dtype=identity.dtype)) and not files.read(bias, (hidden,)).any():
            return
    raise CheckpointError(
        f"{files.directory}: its projector has two layers with {activation} between them, but the recipe has "
        f"model.projector.mm_projector_type={kind}"
    )
