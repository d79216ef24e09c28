"""The dataclasses a recipe is made of, and the functions that make, change, check and save recipes.

This package is the common ground of the launcher and the worker. It never imports torch.
"""

from neva_recipes.config._history import COMMAND_LINE, replaced_values, showable, value_from
from neva_recipes.config._node import (
    ConfigNode,
    Environment,
    Matches,
    NonNegative,
    NonNegativeFloat,
    Positive,
    PositiveFloat,
    Range,
    check_value,
    describe_type,
    field_types,
    format_value,
    node_types,
    parse_value,
    suggest,
)
from neva_recipes.config.data import ConvTemplate, DataConfig, LlavaDataConfig, TextDataConfig
from neva_recipes.config.errors import CheckpointError, DataError, RecipeError, RunError, UserError
from neva_recipes.config.inputs import expand_path, input_paths, path_is, tokenizer_name, with_absolute_inputs
from neva_recipes.config.model import LanguageConfig, ModelConfig, ProjectorConfig, VisionConfig
from neva_recipes.config.recipe import Recipe
from neva_recipes.config.serialization import (
    load_recipe,
    recipe_from_plain,
    recipe_from_yaml,
    recipe_to_plain,
    recipe_to_yaml,
)
from neva_recipes.config.training import (
    CheckpointConfig,
    LoggingConfig,
    OptimConfig,
    ParallelConfig,
    PrecisionConfig,
    TrainerConfig,
)
from neva_recipes.config.tree import Field, build, config, iterate_fields, set_field

__all__ = [
    "COMMAND_LINE",
    "CheckpointConfig",
    "CheckpointError",
    "ConfigNode",
    "ConvTemplate",
    "DataConfig",
    "DataError",
    "Environment",
    "Field",
    "LanguageConfig",
    "LlavaDataConfig",
    "LoggingConfig",
    "Matches",
    "ModelConfig",
    "NonNegative",
    "NonNegativeFloat",
    "OptimConfig",
    "ParallelConfig",
    "Positive",
    "PositiveFloat",
    "PrecisionConfig",
    "ProjectorConfig",
    "Range",
    "Recipe",
    "RecipeError",
    "RunError",
    "TextDataConfig",
    "TrainerConfig",
    "UserError",
    "VisionConfig",
    "build",
    "check_value",
    "config",
    "describe_type",
    "expand_path",
    "field_types",
    "format_value",
    "input_paths",
    "iterate_fields",
    "load_recipe",
    "node_types",
    "parse_value",
    "path_is",
    "recipe_from_plain",
    "recipe_from_yaml",
    "recipe_to_plain",
    "recipe_to_yaml",
    "replaced_values",
    "set_field",
    "showable",
    "suggest",
    "tokenizer_name",
    "value_from",
    "with_absolute_inputs",
]
