"""The vision tower: a transformers CLIP or SigLIP encoder whose images are divided over tensor-parallel ranks."""

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from transformers import CLIPVisionConfig, CLIPVisionModel, PreTrainedModel, SiglipVisionConfig, SiglipVisionModel

from neva_recipes.config import VisionConfig

__all__ = ["build_tower", "encode_images", "freeze_tower", "tower_config"]


def tower_config(vision: VisionConfig) -> CLIPVisionConfig | SiglipVisionConfig:
    """Return the transformers configuration of a recipe's tower."""
    fields = {
        "hidden_size": vision.hidden_size,
        "intermediate_size": vision.ffn_hidden_size,
        "num_hidden_layers": vision.num_layers,
        "num_attention_heads": vision.num_attention_heads,
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "hidden_act": vision.hidden_act,
        "layer_norm_eps": vision.layernorm_epsilon,
    }
    if vision.vision_model_type == "clip":
        return CLIPVisionConfig(**fields)
    # SigLIP's pooling head takes no part in patch features.
    return SiglipVisionConfig(**fields, vision_use_head=False)


def build_tower(vision: VisionConfig) -> PreTrainedModel:
    """Return the whole tower with random weights drawn from torch's default generator."""
    config = tower_config(vision)
    config._attn_implementation = "sdpa"
    tower_class = CLIPVisionModel if vision.vision_model_type == "clip" else SiglipVisionModel
    return tower_class(config)


def freeze_tower(tower: PreTrainedModel, vision: VisionConfig) -> None:
    """Mark which weights are trained.

    The layers above the selected one take no part in the features, so they stay fixed in a trained tower too: a
    weight that never gets a gradient must not be in Megatron's gradient buffers. A trained tower's gradients are
    summed over the tensor-parallel ranks, since each of them encodes its own share of the images.
    """
    tower.requires_grad_(False)
    if vision.freeze:
        return
    trained = [tower.embeddings, *tower.encoder.layers[: _layers_run(vision)]]
    if vision.vision_model_type == "clip":
        trained.append(tower.pre_layrnorm)
    group = parallel_state.get_tensor_model_parallel_group()
    for module in trained:
        module.requires_grad_(True)
        for parameter in module.parameters():
            if group.size() > 1:
                parameter.register_hook(_sum_over_tensor_parallel_ranks)


def _sum_over_tensor_parallel_ranks(gradient: torch.Tensor) -> torch.Tensor:
    total = gradient.clone()
    torch.distributed.all_reduce(total, group=parallel_state.get_tensor_model_parallel_group())
    return total


def _layers_run(vision: VisionConfig) -> int:
    # Hidden state k is the output of layer k, hidden state 0 that of the embeddings; there are num_layers + 1 of them.
    layer = vision.vision_select_layer
    return layer if layer >= 0 else vision.num_layers + 1 + layer


def encode_images(tower: PreTrainedModel, vision: VisionConfig, images: torch.Tensor) -> torch.Tensor:
    """Return the features of all images, each tensor-parallel rank having encoded its share of them.

    Args:
        tower: The tower `build_tower` made.
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
    # All ranks hold the same gradient of the gathered features, so each keeps its part of it: nothing is summed here.
    gathered = gather_from_sequence_parallel_region(features, tensor_parallel_output_grad=False)
    return gathered[:number]


def _select_features(tower: PreTrainedModel, vision: VisionConfig, images: torch.Tensor) -> torch.Tensor:
    hidden = tower.embeddings(images)
    if vision.vision_model_type == "clip":
        hidden = tower.pre_layrnorm(hidden)
    for layer in tower.encoder.layers[: _layers_run(vision)]:
        hidden = layer(hidden, None)
    return hidden[:, 1:] if vision.has_class_token and vision.vision_select_feature == "patch" else hidden
