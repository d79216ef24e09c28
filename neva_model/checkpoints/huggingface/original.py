"""Writes a LLaVA as the original project (github.com/haotian-liu/LLaVA) does: whole, or its projector alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from neva_model.checkpoints.huggingface.naming import ExportedWeights, Naming, main_type, write_weights
from neva_model.checkpoints.huggingface.safetensors_files import SINGLE_FILE, write_files
from neva_model.checkpoints.huggingface.training import recipe_trained_with
from neva_model.checkpoints.weights import Weights
from neva_model.data.images.reading import ImageProcessor
from neva_model.model.vision import tower_config
from neva_model.tokenizers import Tokenizer, load_tokenizer
from neva_recipes.config import (
    CheckpointError,
    LanguageConfig,
    LlavaDataConfig,
    PlainTable,
    Recipe,
    VisionConfig,
    expand_path,
    path_is,
)
from neva_recipes.families import language_family
from neva_recipes.families.llama import LLAMA
from neva_recipes.families.rope import rope_parameters
from neva_recipes.families.towers.clip import CLIP
from neva_recipes.plan.huggingface import could_be_on_hub, language_spellings
from neva_recipes.plan.huggingface.configuration import read_configuration
from neva_recipes.storage.exports import write_digests
from neva_recipes.storage.whole import copy_file, written_whole

__all__ = ["PROJECTOR_FILE", "TOWER", "export_original"]

PROJECTOR_FILE = "mm_projector.bin"
"""The file that its first stage leaves."""

TOWER = "vision_tower"
"""The folder of a tower that is nowhere else."""

_ROPES = ("default", "linear", "dynamic")
"""The kinds of rotary positions that the transformers of its time (4.37) knows."""


def export_original(
    weights: Weights,
    recipe: Recipe,
    tokenizer: str,
    directory: Path,
    *,
    only_projector: bool,
    dtype: torch.dtype | None = None,
    checkpoint: Path | None = None,
    check: Callable[[Path], None] | None = None,
) -> None:
    """Write a LLaVA with `model.mm_projector.*` among the weights and `mm_*` among the keys of config.json.

    As in the original, a tower that is not trained stays where it is, and config.json names that place; any other lies
    in a folder of its own. The directory gets its name only when it is complete.

    Args:
        weights: The weights of the model, which are read one at a time.
        recipe: Its recipe.
        tokenizer: Directory, hub name or SentencePiece file of its tokenizer.
        directory: Directory to write; must not exist yet.
        only_projector: Whether to write the projector alone, as stage 1 does.
        dtype: Type of the written weights; `None` means that of each weight.
        checkpoint: The checkpoint of the model, which the directory will name; `None` if there is none.
        check: Looks at what has been written, before it gets its name.

    Raises:
        CheckpointError: The directory cannot be written, or the original LLaVA has no such model.
        DataError: The tokenizer or the image processor cannot be loaded.
    """
    vision = recipe.model.vision
    if (problem := _why_not(recipe)) is not None or vision is None:
        raise CheckpointError(f"{problem}: the layout of the original LLaVA cannot hold it")
    words = load_tokenizer(tokenizer, vocab_size=None, use_im_start_end=recipe.model.use_im_start_end)
    elsewhere = _tower_elsewhere(vision)
    with written_whole(directory, "directory") as unfinished:
        naming = Naming(LLAMA, language_spellings(LLAMA)[0], None, "model.mm_projector.", has_output=True, rows=0)
        tensors = ExportedWeights(weights, recipe.model, naming, dtype)
        tower = elsewhere or str(directory.absolute() / TOWER)
        _write_configuration(recipe, words, tower, dtype or main_type(tensors), unfinished)
        if only_projector:
            _write_projector(tensors, unfinished)
        else:
            write_weights(tensors, unfinished)
            _write_tokenizer(words, tokenizer, unfinished)
        if elsewhere is None:
            _write_tower(weights, recipe, unfinished / TOWER, dtype)
        write_digests(unfinished, checkpoint, recipe_trained_with(recipe))
        if check is not None:
            check(unfinished)


def _why_not(recipe: Recipe) -> str | None:
    """Return what the original LLaVA does not have."""
    language, vision = recipe.model.language, recipe.model.vision
    if vision is None or recipe.model.projector is None:
        return "the model sees no images"
    if language_family(language).export is not LLAMA:
        return f"model.language.family is {language.family}"
    if vision.vision_model_type != CLIP.name:
        return f"model.vision.vision_model_type is {vision.vision_model_type}"
    if language.head_size * language.num_attention_heads != language.hidden_size:
        return f"model.language.kv_channels is {language.head_size}"
    if (kind := rope_parameters(language)["rope_type"]) not in _ROPES:
        return f"model.language.rope.kind is {kind}"
    return None


def _tower_elsewhere(vision: VisionConfig) -> str | None:
    """Return the folder or name of the tower of a recipe, if it is there as it was; `None` if it is not."""
    source = vision.source
    if source is None or vision.trains:
        return None
    path = expand_path(source)
    if path_is(path / "config.json", Path.is_file):
        return str(path.resolve()) if read_configuration(path).language is None else None
    return source if could_be_on_hub(source) and not Path(source).exists() else None


def _write_configuration(recipe: Recipe, words: Tokenizer, tower: str, dtype: torch.dtype, folder: Path) -> None:
    language, vision, projector = recipe.model.language, recipe.model.vision, recipe.model.projector
    assert vision is not None and projector is not None
    is_padded = isinstance(recipe.data, LlavaDataConfig) and recipe.data.image_aspect_ratio == "pad"
    tokens = {
        "bos_token_id": words.bos_id,
        "eos_token_id": words.eos_id,
        "pad_token_id": words.hf.pad_token_id if words.hf.pad_token_id is not None else words.hf.unk_token_id,
    }
    fields: PlainTable = {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava_llama",
        **_language_keys(language),
        **tokens,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "use_cache": True,
        "image_aspect_ratio": "pad" if is_padded else "square",
        "mm_hidden_size": vision.hidden_size,
        "mm_patch_merge_type": "flat",
        "mm_projector_type": projector.mm_projector_type,
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": recipe.model.use_im_start_end,
        "mm_vision_select_feature": vision.vision_select_feature,
        "mm_vision_select_layer": vision.vision_select_layer,
        "mm_vision_tower": tower,
        "tune_mm_mlp_adapter": False,
        "unfreeze_mm_vision_tower": False,
        "use_mm_proj": True,
    }
    _write_json(fields, folder / "config.json")
    _write_json({"_from_model_config": True, **tokens}, folder / "generation_config.json")


def _language_keys(language: LanguageConfig) -> PlainTable:
    """Return the keys of Llama, as the transformers of the original LLaVA reads them."""
    keys = LLAMA.config_json(language, language.vocab_size)
    rope = keys.pop("rope_parameters")
    del keys["head_dim"]
    kind = rope["rope_type"]
    return {
        **keys,
        "hidden_act": "silu",
        "rope_theta": rope["rope_theta"],
        "rope_scaling": None if kind == "default" else {"type": kind, "factor": rope["factor"]},
    }


def _write_json(fields: PlainTable, path: Path) -> None:
    path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def _write_tokenizer(words: Tokenizer, source: str, folder: Path) -> None:
    words.save_pretrained(folder)
    # The original LLaVA loads the slow tokenizer, which reads SentencePiece's own file.
    model = Path(source) if Path(source).is_file() else Path(source, "tokenizer.model")
    if model.is_file() and not (folder / "tokenizer.model").exists():
        copy_file(model, folder / "tokenizer.model")


def _write_projector(tensors: ExportedWeights, folder: Path) -> None:
    projector = {name: tensor.to(tensors.specs[name].dtype) for name, tensor in tensors.below("model.mm_projector.")}
    torch.save(projector, folder / PROJECTOR_FILE)


def _write_tower(weights: Weights, recipe: Recipe, folder: Path, dtype: torch.dtype | None) -> None:
    vision = recipe.model.vision
    assert vision is not None
    folder.mkdir()
    naming = Naming(LLAMA, language_spellings(LLAMA)[0], "vision_model.", "", has_output=True, rows=0)
    tensors = ExportedWeights(weights, recipe.model, naming, dtype).below("vision_model.")
    config: Any = tower_config(vision)
    config.architectures, config.dtype = ["CLIPVisionModel"], dtype or main_type(tensors)
    config.save_pretrained(folder)
    write_files(tensors.specs, dict.fromkeys(tensors.specs, SINGLE_FILE), tensors, folder, lambda _: None)
    ImageProcessor(vision, "square").hf.save_pretrained(folder)
