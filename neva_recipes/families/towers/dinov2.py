"""The vision towers of DINOv2 (transformers: Dinov2Config)."""

from neva_recipes.families.keys import ONE_WAY, Keys, Read
from neva_recipes.families.towers.clip import FIELDS
from neva_recipes.families.values import COUNT, LAYERS, NUMBER, SIDE, WORD
from neva_recipes.families.vision import VisionFamily

__all__ = ["DINOV2"]

_KEYS = Keys(
    read={
        "hidden_size": Read(COUNT, 768),
        "mlp_ratio": Read(COUNT, 4),
        "num_hidden_layers": Read(LAYERS, 12),
        "num_attention_heads": Read(COUNT, 12),
        "image_size": Read(SIDE, 224),
        "patch_size": Read(SIDE, 14),
        "hidden_act": Read(WORD, "gelu"),
        "layer_norm_eps": Read(NUMBER, 1e-6),
    },
    # The feed-forward layers of the largest one (giant) are gated.
    fixed={"num_channels": 3, "qkv_bias": True, "use_swiglu_ffn": False, "use_mask_token": True},
    fixed_or_null={**ONE_WAY, "is_causal": False},
    # layerscale_value is what training begins with; the others are for use as a backbone of a detector.
    idle=frozenset(
        {
            *("layerscale_value", "apply_layernorm", "reshape_hidden_states", "out_features", "out_indices"),
            *("stage_names", "tie_word_embeddings"),
        }
    ),
    architectures=("Dinov2Model",),
)

_ATTENTION = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}
"""The linear layers of attention as published, and as newer releases of transformers name their modules."""

DINOV2 = VisionFamily(
    name="dinov2",
    title="DINOv2",
    model_type="dinov2",
    whole_model_type=None,
    keys=_KEYS,
    fields=FIELDS,
    mlp_ratio="mlp_ratio",
    activations=("gelu",),
    has_class_token=True,
    needs_whole_patches=False,
    interpolates=True,
    crops=True,
    image_processor="BitImageProcessorPil",
    image_settings={"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
    first_norm=None,
    inner="",
    patches="embeddings.patch_embeddings.projection.weight",
    before={
        "embeddings.patch_embeddings.projection.weight": ("hidden", 3, "patch", "patch"),
        "embeddings.patch_embeddings.projection.bias": ("hidden",),
        "embeddings.cls_token": (1, 1, "hidden"),
        "embeddings.position_embeddings": (1, "positions", "hidden"),
    },
    takes_mask=False,
    layers="encoder.layer",
    layer={
        **{f"{name}.weight": ("hidden", "hidden") for name in _ATTENTION},
        **{f"{name}.bias": ("hidden",) for name in _ATTENTION},
        "mlp.fc1.weight": ("ffn", "hidden"),
        "mlp.fc1.bias": ("ffn",),
        "mlp.fc2.weight": ("hidden", "ffn"),
        "mlp.fc2.bias": ("hidden",),
        **{f"norm{number}.{kind}": ("hidden",) for number in (1, 2) for kind in ("weight", "bias")},
        **{f"layer_scale{number}.lambda1": ("hidden",) for number in (1, 2)},
    },
    layer_scales=2,
    modules=_ATTENTION,
    # The mask token stands for patches that are left out in DINOv2's own training.
    after={"embeddings.mask_token": (1, "hidden"), "layernorm.weight": ("hidden",), "layernorm.bias": ("hidden",)},
    refused={
        "dinov2_with_registers": "DINOv2 with register tokens, which are no patches: take one without, such as "
        "facebook/dinov2-large"
    },
)
"""The family of DINOv2."""
