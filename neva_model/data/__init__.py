"""Data: files of conversations or text in, micro batches of tensors out."""

from neva_model.data.encoding import EncodedConversation, Prompt, encode_conversation, encode_prompt
from neva_model.data.images.reading import ImageProcessor, read_image
from neva_model.data.loading.collate import Microbatch
from neva_model.data.loading.counting import SampleCounts, count_samples
from neva_model.data.loading.loader import MicrobatchLoader, build_train_loader, build_validation_loader
from neva_model.data.sample import Sample
from neva_recipes.prompts.conversation import Turn
from neva_recipes.prompts.encoding import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from neva_recipes.prompts.templates import Template, get_template

__all__ = [
    "IGNORE_INDEX",
    "IMAGE_TOKEN_INDEX",
    "EncodedConversation",
    "ImageProcessor",
    "Microbatch",
    "MicrobatchLoader",
    "Prompt",
    "Sample",
    "SampleCounts",
    "Template",
    "Turn",
    "build_train_loader",
    "build_validation_loader",
    "count_samples",
    "encode_conversation",
    "encode_prompt",
    "get_template",
    "read_image",
]
