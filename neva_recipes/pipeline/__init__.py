"""Pipelines: ordered stages that train, make or use something, each with the outputs of earlier stages.

A pipeline is only a description; `executors.run_pipeline` runs it.
"""

from neva_recipes.config import StageOutput
from neva_recipes.pipeline.flow import Flow, Pipeline, Stage, Work
from neva_recipes.pipeline.text import Generate, LocalizationReport, TokenizeText
from neva_recipes.pipeline.text_parts import unmade_parts
from neva_recipes.pipeline.tools import Evaluate, Export, ModelTool, Tool
from neva_recipes.pipeline.vocabulary import ExtendVocabulary, MergeTokenizers, TrainTokenizer

__all__ = [
    "Evaluate",
    "Export",
    "ExtendVocabulary",
    "Flow",
    "Generate",
    "LocalizationReport",
    "MergeTokenizers",
    "ModelTool",
    "Pipeline",
    "Stage",
    "StageOutput",
    "TokenizeText",
    "Tool",
    "TrainTokenizer",
    "Work",
    "unmade_parts",
]
