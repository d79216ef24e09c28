"""The vision towers of CLIP (transformers: CLIPVisionConfig)."""

from neva_recipes.families.vision import VisionFamily, tower_keys

__all__ = ["CLIP", "FIELDS", "LAYER", "NORM_AFTER"]

FIELDS = {
    "num_hidden_layers": "num_layers",
    "hidden_size": "hidden_size",
    "intermediate_size": "ffn_hidden_size",
    "num_attention_heads": "num_attention_heads",
    "image_size": "image_size",
    "patch_size": "patch_size",
    "hidden_act": "hidden_act",
    "layer_norm_eps": "layernorm_epsilon",
}
"""Keys of a config.json, and the fields of `VisionConfig`."""

LAYER: dict[str, tuple[str | int, ...]] = {
    **{f"self_attn.{name}_proj.weight": ("hidden", "hidden") for name in ("q", "k", "v", "out")},
    **{f"self_attn.{name}_proj.bias": ("hidden",) for name in ("q", "k", "v", "out")},
    "mlp.fc1.weight": ("ffn", "hidden"),
    "mlp.fc1.bias": ("ffn",),
    "mlp.fc2.weight": ("hidden", "ffn"),
    "mlp.fc2.bias": ("hidden",),
    **{f"layer_norm{number}.{kind}": ("hidden",) for number in (1, 2) for kind in ("weight", "bias")},
}
"""The tensors of a layer."""

NORM_AFTER: dict[str, tuple[str | int, ...]] = {
    "post_layernorm.weight": ("hidden",),
    "post_layernorm.bias": ("hidden",),
}
"""The norm after the last layer."""

CLIP = VisionFamily(
    name="clip",
    title="CLIP",
    model_type="clip_vision_model",
    whole_model_type="clip",
    keys=tower_keys(
        ("CLIPVisionModel", "CLIPVisionModelWithProjection", "CLIPModel"),
        patch_size=32,
        hidden_act="quick_gelu",
        layer_norm_eps=1e-5,
    ),
    fields=FIELDS,
    activations=("quick_gelu", "gelu", "gelu_pytorch_tanh"),
    has_class_token=True,
    needs_whole_patches=True,
    crops=True,
    image_processor="CLIPImageProcessorPil",
    first_norm="pre_layrnorm",
    before={
        "embeddings.patch_embedding.weight": ("hidden", 3, "patch", "patch"),
        "embeddings.class_embedding": ("hidden",),
        "pre_layrnorm.weight": ("hidden",),
        "pre_layrnorm.bias": ("hidden",),
        "embeddings.position_embedding.weight": ("positions", "hidden"),
    },
    layer=LAYER,
    after=NORM_AFTER,
    has_config_dict=True,
)
"""The family of CLIP."""
