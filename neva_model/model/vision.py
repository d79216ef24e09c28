"""The vision tower: an encoder of transformers whose images are divided over tensor-parallel ranks."""

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from transformers import MODEL_MAPPING, AutoConfig, PretrainedConfig, PreTrainedModel

from neva_recipes.config import VisionConfig
from neva_recipes.families import layers_run, vision_family

__all__ = [
    "build_tower",
    "encode_images",
    "freeze_tower",
    "layers_that_run",
    "sum_over_tensor_parallel_ranks",
    "tower_config",
]


def tower_config(vision: VisionConfig) -> PretrainedConfig:
    """Return the transformers configuration of a recipe's tower."""
    family = vision_family(vision)
    config: PretrainedConfig = AutoConfig.for_model(family.model_type, **family.config_json(vision))
    return config


def build_tower(vision: VisionConfig) -> PreTrainedModel:
    """Return the whole tower with random weights drawn from torch's default generator."""
    config = tower_config(vision)
    config._attn_implementation = "sdpa"
    tower: PreTrainedModel = MODEL_MAPPING[type(config)](config)
    return tower


def freeze_tower(tower: PreTrainedModel, vision: VisionConfig) -> None:
    """Mark which weights are trained.

    The layers above the selected one, and what no image meets, stay fixed in a trained tower too: a weight that never
    gets a gradient must not be in Megatron's gradient buffers. A trained tower's gradients are summed over the
    tensor-parallel ranks, since each rank encodes its own share of the images.
    """
    tower.requires_grad_(False)
    if not vision.trains_weights:
        return
    trained = [tower.embeddings, *layers_that_run(tower, vision)]
    if (first_norm := _first_norm(tower, vision)) is not None:
        trained.append(first_norm)
    unused = {id(tower.get_parameter(name)) for name in vision_family(vision).after}
    group = parallel_state.get_tensor_model_parallel_group()
    for parameter in (one for module in trained for one in module.parameters() if id(one) not in unused):
        parameter.requires_grad_(True)
        if group.size() > 1:
            parameter.register_hook(sum_over_tensor_parallel_ranks)


def sum_over_tensor_parallel_ranks(gradient: torch.Tensor) -> torch.Tensor:
    """Return the sum of a gradient of the tower, of whose images each tensor-parallel rank encodes its share."""
    total = gradient.clone()
    torch.distributed.all_reduce(total, group=parallel_state.get_tensor_model_parallel_group())
    return total


def _first_norm(tower: PreTrainedModel, vision: VisionConfig) -> torch.nn.Module | None:
    """Return the module between embeddings and layers, if there is one."""
    name = vision_family(vision).first_norm
    return None if name is None else tower.get_submodule(name)


def layers_that_run(tower: PreTrainedModel, vision: VisionConfig) -> list[torch.nn.Module]:
    """Return the layers of a tower that the selected features need."""
    layers = tower.get_submodule(vision_family(vision).layers)
    return list(layers.children())[: layers_run(vision)]


def encode_images(tower: PreTrainedModel, vision: VisionConfig, images: torch.Tensor) -> torch.Tensor:
    """Return the features of all images; each tensor-parallel rank encodes its share of them.

    Args:
        tower: The tower made by `build_tower`.
        vision: Its configuration.
        images: Preprocessed images `[number, 3, height, width]`, at least one, the same on all tensor-parallel ranks.

    Returns:
        Features `[number, tokens per image, vision hidden size]` of the selected layer.
    """
    group = parallel_state.get_tensor_model_parallel_group()
    number, ranks = images.shape[0], group.size()
    if ranks == 1:
        return _select_features(tower, vision, images)
    share = -(-number // ranks)
    blank = images.new_zeros(share * ranks - number, *images.shape[1:])
    own = torch.cat([images, blank])[group.rank() * share : (group.rank() + 1) * share]
    features = _select_features(tower, vision, own)
    # All ranks hold the same gradient of the gathered features, so each keeps its part and nothing is summed here.
    gathered = gather_from_sequence_parallel_region(features, tensor_parallel_output_grad=False)
    return gathered[:number]


def _select_features(tower: PreTrainedModel, vision: VisionConfig, images: torch.Tensor) -> torch.Tensor:
    family, hidden = vision_family(vision), tower.embeddings(images)
    if (first_norm := _first_norm(tower, vision)) is not None:
        hidden = first_norm(hidden)
    for layer in layers_that_run(tower, vision):
        hidden = layer(hidden, None) if family.takes_mask else layer(hidden)
    return hidden[:, 1:] if family.skips_first(vision) else hidden
