"""The training data: image-text conversations, or plain text."""

from typing import Literal

from neva_recipes.config.values.node import ConfigNode, NonNegative, Positive, PositiveFloat, config_dataclass
from neva_recipes.config.values.paths import OptionalPathField, OptionalPathsField

__all__ = ["ConvTemplate", "DataConfig", "LlavaDataConfig", "TextDataConfig"]

ConvTemplate = Literal[
    "plain",
    "v1",
    "llama_2",
    "llava_llama_2",
    "mistral_instruct",
    "nvgpt",
    "llama_3",
    "chatml",
    "llava_v1_human",
    "chatml_direct",
    "mpt",
    "nv_steerlm",
    "nv_dpo",
    "yi_34b",
    "gemma",
    "megatron_mistral",
    "megatron_qwen2",
    "llamafactory_vicuna",
    "internlm2_chat",
    "xtuner_qwen_chat",
    "xtuner_phi3_chat",
    "xtuner_vicuna",
    "xtuner_llama2_chat",
    "xtuner_mistral",
]
"""Names of the conversation templates; each reproduces the project it is named after (docs/data.md)."""


@config_dataclass
class DataConfig(ConfigNode):
    """What every data source shares: files, batch sizes, and the order of samples."""

    data_path: OptionalPathsField = None  # type: ignore[assignment]
    """Training file, or several, a.json,b.jsonl.gz, whose samples follow each other; must be set before a run."""
    validation_data_path: OptionalPathsField = None  # type: ignore[assignment]
    """Validation file, or several; None means no validation."""
    tokenizer: OptionalPathField = None  # type: ignore[assignment]
    """Hugging Face directory or hub name, or a SentencePiece .model file; None means model.language.from_pretrained."""
    sequence_length: Positive = 2048
    """Longest sequence in tokens, image tokens included."""
    micro_batch_size: Positive = 1
    """Samples a GPU takes through the model at once."""
    global_batch_size: Positive = 128
    """Samples of one optimizer step over all GPUs."""
    dataloader_type: Literal["cyclic", "single"] = "cyclic"
    """cyclic: shuffled anew every epoch, without end; single: one pass in the order of the file."""
    num_workers: NonNegative = 2
    """Data-loading processes per rank; 0 loads in the training process."""


@config_dataclass
class LlavaDataConfig(DataConfig):
    """Conversations about images in LLaVA's JSON or JSONL format."""

    image_folder: OptionalPathField = None  # type: ignore[assignment]
    """Folder that the image names of the file are relative to; None means each file's own folder."""
    conv_template: ConvTemplate = "v1"
    """How turns become a prompt and which part of it carries loss."""
    image_aspect_ratio: Literal["square", "pad", "crop"] = "square"
    """square (= crop): short side to size, centre crop; pad: first padded to a square with the mean colour."""
    group_by_modality_length: bool = False
    """Batches of similar length, text-only samples apart from image samples (cyclic only)."""
    on_bad_sample: Literal["error", "skip"] = "error"
    """error: end at samples that cannot be used; skip: count them, name them in bad_samples.jsonl, take others."""


@config_dataclass
class TextDataConfig(DataConfig):
    """Plain text: JSONL with a "text" field, one document per line, or the .idx of what nemo-run data text wrote."""

    blend: list[PositiveFloat] | None = None
    """Weights of the files of data_path, if these are .idx files; None means by their numbers of tokens."""
