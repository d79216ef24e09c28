"""Writing a trained model as a directory that transformers and vLLM load."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from huggingface_hub.serialization import StateDictSplit
from safetensors.torch import save_file
from transformers import GenerationConfig, LlamaConfig, LlavaConfig

from neva_model.checkpoints.huggingface.configuration import LLAMA3_SCALING
from neva_model.checkpoints.huggingface.llama import split_parameter
from neva_model.checkpoints.huggingface.processor import (
    ExportedTokenizer,
    feature_select_strategy,
    load_export_tokenizer,
    write_processor,
)
from neva_model.model import NevaModel, global_parameters
from neva_model.model.vision import tower_config
from neva_recipes.config import CheckpointError, LanguageConfig, ModelConfig, Recipe

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
) -> None:
    """Write a whole model: weights, configuration, tokenizer, image processor and chat template.

    A vision-language model becomes a `LlavaForConditionalGeneration`, a text-only one a `LlamaForCausalLM`. The
    directory gets its name when it is complete.

    Args:
        model: The model on one process.
        recipe: Its recipe.
        tokenizer: Directory, hub name or SentencePiece file of its tokenizer.
        directory: Directory to write; must not exist yet.
        dtype: Precision of the written weights; none means the model's.
        max_shard_size: Size from which weights are split over several files.

    Raises:
        CheckpointError: The directory exists or cannot be written, or transformers has no class for the model.
        DataError: The tokenizer or the image processor cannot be loaded or does not fit.
    """
    if directory.exists():
        raise CheckpointError(f"{directory}: exists already; name a directory that does not")
    _check_projector(recipe.model)
    dtype = dtype or model.config.params_dtype
    exported = load_export_tokenizer(recipe, tokenizer)
    unfinished = directory.with_name(f".{directory.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        tensors = {name: weight.to(dtype).contiguous() for name, weight in _tensors(model, recipe, exported).items()}
        _write_weights(tensors, unfinished, max_shard_size)
        _write_configuration(recipe, exported, dtype, unfinished)
        write_processor(recipe, exported, unfinished)
        unfinished.rename(directory)
    except OSError as error:
        raise CheckpointError(f"{directory}: cannot be written: {error}") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _check_projector(model: ModelConfig) -> None:
    if model.projector is not None and model.projector.num_layers > 2:
        raise CheckpointError(
            f"model.projector.mm_projector_type={model.projector.mm_projector_type}: transformers' LLaVA has two "
            "layers, so only linear and mlp2x_gelu can be exported"
        )


@torch.no_grad()
def _tensors(model: NevaModel, recipe: Recipe, exported: ExportedTokenizer) -> Tensors:
    language: Tensors = {}
    for name, parameter in global_parameters(model.language):
        language |= split_parameter(name, parameter.cpu(), recipe.model.language)
    if model.vision is None or model.projector is None:
        return language
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in language:
            language[name] = _with_image_row(language[name], exported)
    tensors = {f"language_model.{name}": weight for name, weight in language.items()}
    # The names of the published LLaVA directories: every release of transformers and vLLM reads them.
    tensors |= {f"vision_tower.vision_model.{name}": weight.cpu() for name, weight in model.vision.state_dict().items()}
    return tensors | _projector_tensors(model.projector)


def _with_image_row(weight: torch.Tensor, exported: ExportedTokenizer) -> torch.Tensor:
    """Return a vocabulary matrix with a row for `<image>`, unless the token has one.

    The row is the mean of the others, so its logit is never the largest and it is never generated.
    """
    row = exported.image_token_id
    assert row is not None and row <= len(weight)
    return weight if row < len(weight) else torch.cat([weight, weight.float().mean(0, keepdim=True).to(weight.dtype)])


def _projector_tensors(projector: torch.nn.Module) -> Tensors:
    linears = [module for module in projector.modules() if isinstance(module, torch.nn.Linear)]
    weights = [(linear.weight.cpu(), linear.bias.cpu()) for linear in linears]
    if len(weights) == 1:
        # A linear projector becomes two layers, the second an identity, with nothing between them.
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
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_configuration(recipe: Recipe, exported: ExportedTokenizer, dtype: torch.dtype, directory: Path) -> None:
    tokens: dict[str, Any] = {
        "bos_token_id": exported.tokenizer.bos_id,
        "eos_token_id": exported.tokenizer.eos_id,
        "pad_token_id": exported.tokenizer.pad_id,
    }
    language, vision = recipe.model.language, recipe.model.vision
    if vision is None:
        config: Any = _llama_config(language, language.vocab_size, tokens)
        config.architectures = ["LlamaForCausalLM"]
    else:
        assert exported.image_token_id is not None and recipe.model.projector is not None
        rows = max(language.vocab_size, exported.image_token_id + 1)
        config = LlavaConfig(
            text_config=_llama_config(language, rows, tokens),
            vision_config=tower_config(vision),
            image_token_index=exported.image_token_id,
            image_seq_length=vision.tokens_per_image,
            projector_hidden_act="gelu" if recipe.model.projector.num_layers > 1 else "linear",
            vision_feature_layer=vision.vision_select_layer,
            vision_feature_select_strategy=feature_select_strategy(vision),
            tie_word_embeddings=language.share_embeddings_and_output_weights,
        )
        config.architectures = ["LlavaForConditionalGeneration"]
    config.dtype = dtype
    config.save_pretrained(directory)
    GenerationConfig(**{**tokens, "eos_token_id": exported.stop_ids or None}).save_pretrained(directory)


def _llama_config(language: LanguageConfig, rows: int, tokens: dict[str, Any]) -> LlamaConfig:
    """Return transformers' configuration of a recipe's language model.

    Args:
        language: The language model.
        rows: Rows of its vocabulary.
        tokens: Ids of the tokens that begin, end and fill a sequence.
    """
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": language.rotary_base}
    if language.rope_scaling_factor is not None:
        rope |= {"rope_type": "llama3", "factor": language.rope_scaling_factor, **LLAMA3_SCALING}
    return LlamaConfig(
        vocab_size=rows,
        hidden_size=language.hidden_size,
        intermediate_size=language.ffn_hidden_size,
        num_hidden_layers=language.num_layers,
        num_attention_heads=language.num_attention_heads,
        num_key_value_heads=language.num_query_groups,
        head_dim=language.head_size,
        max_position_embeddings=language.max_position_embeddings,
        rms_norm_eps=language.layernorm_epsilon,
        rope_parameters=rope,
        tie_word_embeddings=language.share_embeddings_and_output_weights,
        **tokens,
    )
