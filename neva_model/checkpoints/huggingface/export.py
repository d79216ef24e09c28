"""Writes a trained model as a directory that transformers loads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig, LlavaConfig, PretrainedConfig

from neva_model.checkpoints.huggingface.naming import ExportedWeights, Naming, main_type, write_weights
from neva_model.checkpoints.huggingface.processor import (
    ExportedTokenizer,
    feature_select_strategy,
    load_export_tokenizer,
    write_processor,
)
from neva_model.checkpoints.huggingface.training import recipe_trained_with
from neva_model.checkpoints.weights.names import Weights
from neva_model.model.vision import tower_config
from neva_model.tokenizers import read_otherwise
from neva_recipes.config import CheckpointError, LanguageConfig, ModelConfig, PlainTable, Recipe
from neva_recipes.families import image_length, language_family, vision_family
from neva_recipes.plan.huggingface import LLAVA_SPELLING, language_spellings, why_not_exportable
from neva_recipes.storage.exports import require_new_directory, write_digests
from neva_recipes.storage.whole import written_whole
from neva_recipes.terminal import tell

__all__ = ["export_huggingface"]


def export_huggingface(
    weights: Weights,
    recipe: Recipe,
    tokenizer: str,
    directory: Path,
    *,
    dtype: torch.dtype | None = None,
    max_shard_size: str = "5GB",
    checkpoint: Path | None = None,
    check: Callable[[Path], None] | None = None,
) -> None:
    """Write a whole model: weights, configuration, tokenizer, image processor and chat template.

    A vision-language model becomes a `LlavaForConditionalGeneration`, a text-only one the class of its family, such
    as `LlamaForCausalLM`. The directory gets its name only when it is complete.

    Args:
        weights: The weights of the model, which are read one at a time.
        recipe: Its recipe.
        tokenizer: Directory, hub name or SentencePiece file of its tokenizer.
        directory: Directory to write; must not exist yet.
        dtype: Type of the written weights; `None` means that of each weight.
        max_shard_size: Size above which weights are split over several files.
        checkpoint: The checkpoint of the model, which the directory will name; `None` if there is none.
        check: Looks at what has been written, before it gets its name.

    Raises:
        CheckpointError: The directory exists or cannot be written, or transformers has nothing that does what the model
            does.
        DataError: The tokenizer or the image processor cannot be loaded or does not fit.
    """
    require_new_directory(directory)
    if problem := why_not_exportable(recipe):
        raise CheckpointError(problem)
    exported = load_export_tokenizer(recipe, tokenizer)
    with written_whole(directory, "directory") as unfinished:
        tensors = ExportedWeights(weights, recipe.model, _naming(recipe.model, exported), dtype)
        _write_configuration(recipe, exported, dtype or main_type(tensors), unfinished)
        write_weights(tensors, unfinished, max_shard_size=max_shard_size)
        write_processor(recipe, exported, unfinished)
        if (text := read_otherwise(unfinished, exported.tokenizer)) is not None:
            tell(
                "warning",
                f"{directory}: AutoTokenizer of transformers cuts text otherwise than the training did, such as "
                f"{text!r}, for it goes by the family of the model: load the tokenizer with PreTrainedTokenizerFast",
            )
        write_digests(unfinished, checkpoint, recipe_trained_with(recipe))
        if check is not None:
            check(unfinished)


def _naming(model: ModelConfig, exported: ExportedTokenizer) -> Naming:
    family = language_family(model.language).export
    # The names in published LLaVA directories, which every release of transformers and vLLM reads.
    vision = None if model.vision is None else f"vision_tower.{vision_family(model.vision).inner}"
    return Naming(
        family=family,
        language=language_spellings(family)[0] if model.vision is None else LLAVA_SPELLING,
        vision=vision,
        projector="multi_modal_projector.",
        has_output=not _is_tied(model),
        rows=max(model.language.vocab_size, exported.rows),
    )


def _is_tied(model: ModelConfig) -> bool:
    """Return whether an exported model has one matrix for embeddings and output layer; otherwise the second is a copy.

    The LLaVA of transformers takes the embeddings from a tensor of the name that Llama's has, or fails.
    """
    language = model.language
    family = language_family(language).export
    can_be = model.vision is None or family.embedding_tensor == "embed_tokens.weight"
    return language.share_embeddings_and_output_weights and can_be


def _write_configuration(recipe: Recipe, exported: ExportedTokenizer, dtype: torch.dtype, directory: Path) -> None:
    tokens: PlainTable = {
        "bos_token_id": exported.tokenizer.bos_id,
        "eos_token_id": exported.tokenizer.eos_id,
        "pad_token_id": exported.pad_id,
    }
    language, vision = recipe.model.language, recipe.model.vision
    rows, is_tied = max(language.vocab_size, exported.rows), _is_tied(recipe.model)
    text = _language_config(language, rows, {**tokens, "tie_word_embeddings": is_tied})
    if vision is None:
        config: Any = text
        config.architectures = [language_family(language).export.keys.architectures[0]]
    else:
        assert exported.image_token_id is not None and recipe.model.projector is not None
        config = LlavaConfig(
            text_config=text,
            vision_config=tower_config(vision),
            image_token_index=exported.image_token_id,
            image_seq_length=image_length(vision),
            projector_hidden_act="gelu" if recipe.model.projector.num_layers > 1 else "linear",
            vision_feature_layer=vision.vision_select_layer,
            vision_feature_select_strategy=feature_select_strategy(vision),
            tie_word_embeddings=is_tied,
            pad_token_id=exported.pad_id,
        )
        config.architectures = ["LlavaForConditionalGeneration"]
    config.dtype = dtype
    config.save_pretrained(directory)
    GenerationConfig(**{**tokens, "eos_token_id": exported.stop_ids or None}).save_pretrained(directory)


def _language_config(language: LanguageConfig, rows: int, others: PlainTable) -> PretrainedConfig:
    """Return transformers' configuration of a recipe's language model.

    Args:
        language: The language model.
        rows: Rows of its vocabulary.
        others: Keys that the recipe's language model does not decide alone.
    """
    family = language_family(language).export
    fields = family.config_json(language, rows) | others
    config: PretrainedConfig = AutoConfig.for_model(family.model_type, **fields)
    return config
