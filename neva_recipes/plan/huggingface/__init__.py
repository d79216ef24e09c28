"""Hugging Face directories, understood by their configuration and the headers of their weights; never imports torch.

The dry run and the worker make the same checks: the dry run reports everything that is wrong, the worker stops at the
first problem.
"""

from neva_recipes.plan.huggingface.comparison import Mismatch, compare_part
from neva_recipes.plan.huggingface.configuration import Configuration
from neva_recipes.plan.huggingface.directory import (
    Directory,
    described_directory,
    is_huggingface,
    kept_directory,
    open_directory,
)
from neva_recipes.plan.huggingface.exportable import why_not_exportable
from neva_recipes.plan.huggingface.hub import (
    cached_models,
    cached_snapshot,
    could_be_on_hub,
    has_known_sizes,
    is_cached,
    is_hub_name,
    is_offline,
)
from neva_recipes.plan.huggingface.json_files import image_side, read_image_processor, read_object
from neva_recipes.plan.huggingface.names import (
    LLAVA_SPELLING,
    LanguageSpelling,
    core_weight,
    language_spellings,
    projector_names,
    vision_tensors,
)
from neva_recipes.plan.huggingface.parts import language_fields, tower_fields, tower_fields_of
from neva_recipes.plan.huggingface.tensors import StoredTensor
from neva_recipes.plan.huggingface.tower import tower_directory
from neva_recipes.plan.huggingface.vocabulary import VocabularyRows, vocabulary_rows

__all__ = [
    "LLAVA_SPELLING",
    "Configuration",
    "Directory",
    "LanguageSpelling",
    "Mismatch",
    "StoredTensor",
    "VocabularyRows",
    "cached_models",
    "cached_snapshot",
    "compare_part",
    "core_weight",
    "could_be_on_hub",
    "described_directory",
    "has_known_sizes",
    "image_side",
    "is_cached",
    "is_hub_name",
    "is_huggingface",
    "is_offline",
    "kept_directory",
    "language_fields",
    "language_spellings",
    "open_directory",
    "projector_names",
    "read_image_processor",
    "read_object",
    "tower_directory",
    "tower_fields",
    "tower_fields_of",
    "vision_tensors",
    "vocabulary_rows",
    "why_not_exportable",
]
