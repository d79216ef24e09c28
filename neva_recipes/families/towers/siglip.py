"""The vision towers of SigLIP, and of SigLIP 2 with fixed resolution (transformers: SiglipVisionConfig for both)."""

from neva_recipes.families.towers.clip import FIELDS, LAYER, NORM_AFTER
from neva_recipes.families.vision import VisionFamily, tower_keys

__all__ = ["SIGLIP"]

_NAFLEX = (
    "SigLIP 2 with NaFlex, whose images keep their shape and so have no fixed number of tokens: take a SigLIP 2 of "
    "fixed resolution, such as google/siglip2-so400m-patch14-384"
)

SIGLIP = VisionFamily(
    name="siglip",
    title="SigLIP",
    model_type="siglip_vision_model",
    whole_model_type="siglip",
    keys=tower_keys(
        ("SiglipVisionModel", "SiglipModel"), patch_size=16, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6
    ),
    fields=FIELDS,
    # Its pooling head takes no part in patch features.
    settings={"vision_use_head": False},
    activations=("gelu_pytorch_tanh", "gelu"),
    has_class_token=False,
    # The best-known tower has 384 pixels and patches of 14 pixels; it leaves out the last six pixels.
    needs_whole_patches=False,
    crops=False,
    image_processor="SiglipImageProcessorPil",
    first_norm=None,
    before={
        "embeddings.patch_embedding.weight": ("hidden", 3, "patch", "patch"),
        "embeddings.patch_embedding.bias": ("hidden",),
        "embeddings.position_embedding.weight": ("positions", "hidden"),
    },
    layer=LAYER,
    after=NORM_AFTER,
    refused={"siglip2": _NAFLEX, "siglip2_vision_model": _NAFLEX},
)
"""The family of SigLIP."""
