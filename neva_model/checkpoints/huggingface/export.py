"""Writes a trained model as a directory that transformers loads."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from huggingface_hub.serialization import StateDictSplit
from safetensors.torch import save_file
from transformers import AutoConfig, GenerationConfig, LlavaConfig, PretrainedConfig

from neva_model.checkpoints.huggingface.language import split_parameter
from neva_model.checkpoints.huggingface.processor import (
    ExportedTokenizer,
    feature_select_strategy,
    load_export_tokenizer,
    write_processor,
)
from neva_model.checkpoints.huggingface.training import recipe_trained_with
from neva_model.model import NevaModel, global_parameters
from neva_model.model.vision import tower_config
from neva_model.tokenizers import read_otherwise
from neva_recipes.config import CheckpointError, LanguageConfig, ModelConfig, PlainTable, Recipe
from neva_recipes.families import image_length, language_family
from neva_recipes.plan.huggingface import LLAVA_SPELLING, language_spellings, why_not_exportable
from neva_recipes.storage.exports import require_new_directory, write_digests
from neva_recipes.storage.whole import written_whole
from neva_recipes.terminal import tell

__all__ = ["export_huggingface"]

Tensors = dict[str, torch.Tensor]


def export_huggingface(
    model: NevaModel,
    recipe: Recipe,
    tokenizer: str,
    directory: Path,
    *,
    dtype: torch.dtype | None = None,
    max_shard_size: str = "5GB",
    checkpoint: Path | None = None,
) -> None:
    """Write a whole model: weights, configuration, tokenizer, image processor and chat template.

    A vision-language model becomes a `LlavaForConditionalGeneration`, a text-only one the class of its family, such
    as `LlamaForCausalLM`. The directory gets its name only when it is complete.

    Args:
        model: The model on one process.
        recipe: Its recipe.
        tokenizer: Directory, hub name or SentencePiece file of its tokenizer.
        directory: Directory to write; must not exist yet.
        dtype: Precision of the written weights; `None` means that of the model.
        max_shard_size: Size above which weights are split over several files.
        checkpoint: The checkpoint of the model, which the directory will name; `None` if there is none.

    Raises:
        CheckpointError: The directory exists or cannot be written, or transformers has nothing that does what the model
            does.
        DataError: The tokenizer or the image processor cannot be loaded or does not fit.
    """
    require_new_directory(directory)
    if problem := why_not_exportable(recipe):
        raise CheckpointError(problem)
    dtype = dtype or model.config.params_dtype
    exported = load_export_tokenizer(recipe, tokenizer)
    with written_whole(directory, "directory") as unfinished:
        tensors = {name: weight.to(dtype).contiguous() for name, weight in _tensors(model, recipe, exported).items()}
        _write_configuration(recipe, exported, dtype, unfinished)
        _write_weights(tensors, unfinished, max_shard_size)
        write_processor(recipe, exported, unfinished)
        if (text := read_otherwise(unfinished, exported.tokenizer)) is not None:
            tell(
                "warning",
                f"{directory}: AutoTokenizer of transformers cuts text otherwise than the training did, such as "
                f"{text!r}, for it goes by the family of the model: load the tokenizer with PreTrainedTokenizerFast",
            )
        write_digests(unfinished, checkpoint, recipe_trained_with(recipe))


@torch.no_grad()
def _tensors(model: NevaModel, recipe: Recipe, exported: ExportedTokenizer) -> Tensors:
    family = language_family(recipe.model.language).export
    spelling = language_spellings(family)[0] if recipe.model.vision is None else LLAVA_SPELLING
    tensors: Tensors = {}
    for name, parameter in global_parameters(model.language):
        tensors |= split_parameter(name, parameter.cpu(), recipe.model.language, spelling)
    embedding, head = f"{spelling.body}{family.embedding_tensor}", f"{spelling.head}{family.head_tensor}"
    if head not in tensors and not _is_tied(recipe.model):
        tensors[head] = tensors[embedding].clone()
    for name in (embedding, head):
        if name in tensors:
            tensors[name] = _with_all_rows(tensors[name], exported.rows)
    if model.vision is None or model.projector is None:
        return tensors
    # The names in published LLaVA directories, which every release of transformers and vLLM reads.
    tensors |= {f"vision_tower.vision_model.{name}": weight.cpu() for name, weight in model.vision.state_dict().items()}
    return tensors | _projector_tensors(model.projector)


def _is_tied(model: ModelConfig) -> bool:
    """Return whether an exported model has one matrix for embeddings and output layer; otherwise the second is a copy.

    The LLaVA of transformers takes the embeddings from a tensor of the name that Llama's has, or fails.
    """
    language = model.language
    family = language_family(language).export
    can_be = model.vision is None or family.embedding_tensor == "embed_tokens.weight"
    return language.share_embeddings_and_output_weights and can_be


def _with_all_rows(weight: torch.Tensor, rows: int) -> torch.Tensor:
    """Return a vocabulary matrix with a row for every token, including tokens that only serve transformers.

    A new row is the mean of the other rows, so its logit is never the largest, and greedy decoding never picks it.
    """
    new = max(rows - len(weight), 0)  # a model may have rows to spare
    return torch.cat([weight, weight.float().mean(0, keepdim=True).to(weight.dtype).expand(new, -1)])


def _projector_tensors(projector: torch.nn.Module) -> Tensors:
    linears = [module for module in projector.modules() if isinstance(module, torch.nn.Linear)]
    weights = [(linear.weight.cpu(), linear.bias.cpu()) for linear in linears]
    if len(weights) == 1:
        # A linear projector becomes two layers without an activation; the second is an identity.
        width = weights[0][0].shape[0]
        weights.append((torch.eye(width), torch.zeros(width)))
    return {
        f"multi_modal_projector.linear_{number}.{kind}": tensor
        for number, layer in enumerate(weights, start=1)
        for kind, tensor in zip(("weight", "bias"), layer, strict=True)
    }


def _write_weights(tensors: Tensors, directory: Path, max_shard_size: str) -> None:
    split: StateDictSplit = split_torch_state_dict_into_shards(
        tensors, filename_pattern="model{suffix}.safetensors", max_shard_size=max_shard_size
    )
    for file, names in split.filename_to_tensors.items():
        save_file({name: tensors[name] for name in names}, directory / file, metadata={"format": "pt"})
        # safetensors makes its files readable only for the owner, whatever the umask; serving may need more.
        shutil.copymode(directory / "config.json", directory / file)
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


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
