"""The model: a vision tower, a projector and a Megatron-Core language model."""

from neva_model.model.chunks import ModelChunks, build_chunks
from neva_model.model.context import own_positions
from neva_model.model.initialization import global_parameters
from neva_model.model.language import LanguageModel
from neva_model.model.neva import NevaModel, build_model
from neva_model.model.process_groups import initialize_model_parallel
from neva_model.model.transformer import model_parallel_sizes, transformer_config
from neva_recipes.prompts.encoding import IGNORE_INDEX, IMAGE_TOKEN_INDEX

__all__ = [
    "IGNORE_INDEX",
    "IMAGE_TOKEN_INDEX",
    "LanguageModel",
    "ModelChunks",
    "NevaModel",
    "build_chunks",
    "build_model",
    "global_parameters",
    "initialize_model_parallel",
    "model_parallel_sizes",
    "own_positions",
    "transformer_config",
]
