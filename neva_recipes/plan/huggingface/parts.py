"""The fields of a recipe that a Hugging Face directory decides, for a language model and for a vision tower."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neva_recipes.config import CheckpointError, PlainTable, RopeConfig, config, expand_path
from neva_recipes.families import VisionFamily
from neva_recipes.plan.huggingface.configuration import Configuration, read_configuration
from neva_recipes.plan.huggingface.directory import Directory, open_directory
from neva_recipes.plan.huggingface.hub import could_be_on_hub
from neva_recipes.plan.huggingface.tensors import has_weight_files

__all__ = ["language_fields", "tower_fields", "tower_fields_of"]


def language_fields(source: str) -> PlainTable:
    """Return the fields of a draft of `LanguageConfig` that a directory decides, its weights included.

    Args:
        source: A Hugging Face directory, or a name on the hub, of which only config.json is fetched.

    Raises:
        CheckpointError: There is no such directory, or its language model is not understood.
    """
    path, configuration, opened = _open(source, "language")
    if configuration.family is None or configuration.text is None:
        raise CheckpointError(f"{path}: holds a {configuration.architecture}, no language model")
    fields = configuration.family.told(configuration.text)
    if opened is not None and opened.has_own_output:
        fields["share_embeddings_and_output_weights"] = False
    if fields.get("rope") is not None:
        fields["rope"] = config(RopeConfig, **vars(fields["rope"]))
    return {**fields, "from_pretrained": source}


def tower_fields(source: str) -> PlainTable:
    """Return the fields of `VisionConfig` that a directory decides, its weights included.

    Args:
        source: A Hugging Face directory with a vision tower, a model of images and texts, or a LLaVA; or a name on the
            hub, of which only config.json is fetched.

    Raises:
        CheckpointError: There is no such directory, or its vision tower is not understood.
    """
    path, configuration, _ = _open(source, "vision")
    if configuration.tower_family is None or configuration.vision is None:
        raise CheckpointError(f"{path}: holds a {configuration.architecture}, no vision tower")
    return {**tower_fields_of(configuration.tower_family, configuration.vision), "from_pretrained": source}


def tower_fields_of(family: VisionFamily, tower: Mapping[str, Any]) -> PlainTable:
    """Return the family and the sizes of a tower, as fields of `VisionConfig`.

    Args:
        family: The family of the tower.
        tower: Its sizes, by the keys of a config.json.
    """
    fields = {ours: tower[theirs] for theirs, ours in family.fields.items()}
    # Written out, the size of the images can be changed alone.
    positions = tower["image_size"] if family.interpolates else None
    return {"vision_model_type": family.name, **fields, "position_image_size": positions}


def _open(source: str, part: str) -> tuple[Path, Configuration, Directory | None]:
    """Return where a configuration stands, what it says, and the directory if its weights are there."""
    path = expand_path(source)
    if not path.exists() and could_be_on_hub(source):
        path = _fetched(source)
    if not path.is_dir():
        what = "is a file, expected the directory that it lies in" if path.exists() else "no such directory"
        raise CheckpointError(f"{source}: {what} (a name on the Hugging Face hub looks like owner/name)")
    opened = open_directory(path) if has_weight_files(path) else None
    configuration = opened.configuration if opened is not None else read_configuration(path)
    if configuration is None:
        raise CheckpointError(f"{path}: has no config.json")
    for problem in configuration.problems_with(part):
        raise CheckpointError(f"{path}/config.json: {problem}")
    return path, configuration, opened


def _fetched(name: str) -> Path:
    """Return the directory with the config.json of a model on the hub, or of an earlier download."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # the error says all that its warnings say
    try:
        return Path(hf_hub_download(name, "config.json")).parent
    except (OSError, OfflineModeIsEnabled, HFValidationError) as error:
        reason = textwrap.shorten(str(error), 160, placeholder=" ...")
        raise CheckpointError(
            f"{name}: no such directory here, and its config.json cannot be fetched from the Hugging Face hub: "
            f"{reason}; where there is a network, hf download {name} --local-dir DIR makes a directory to name instead"
        ) from None
