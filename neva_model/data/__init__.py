"""Data: files of conversations or text in, microbatches of tensors out."""

from neva_model.data.collate import Microbatch
from neva_model.data.encoding import EncodedConversation, Prompt, encode_conversation, encode_prompt
from neva_model.data.images import ImageProcessor, read_image
from neva_model.data.loader import MicrobatchLoader, build_train_loader, build_validation_loader, count_samples
from neva_model.data.sample import IGNORE_INDEX, Sample
from neva_recipes.prompts.conversation import Turn, parse_conversation
from neva_recipes.prompts.encoding import IMAGE_TOKEN_INDEX
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
    "Template",
    "Turn",
    "build_train_loader",
    "build_validation_loader",
    "count_samples",
    "encode_conversation",
    "encode_prompt",
    "get_template",
    "parse_conversation",
    "read_image",
]
