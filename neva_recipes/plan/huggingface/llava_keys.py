"""The keys of the config.json of a LLaVA, in both of its layouts, and of a whole CLIP or SigLIP."""

from neva_recipes.families.keys import CAUSAL, ONE_WAY, Keys, Read
from neva_recipes.families.llama import LLAMA
from neva_recipes.families.values import COUNT, FLAG, INDEX, LAYER, OBJECT, WORD

__all__ = ["LLAVA", "ORIGINAL_LLAVA", "WHOLE_CLIP"]

WHOLE_CLIP = Keys(
    read={"vision_config": Read(OBJECT, {}), "vision_config_dict": Read(OBJECT)},
    fixed=CAUSAL,
    fixed_or_null=ONE_WAY,
    idle=frozenset({"text_config", "text_config_dict", "projection_dim"}),
)
"""CLIPConfig and SiglipConfig; only the tower is used, whose family knows the architectures."""

LLAVA = Keys(
    read={
        "text_config": Read(OBJECT, {}),
        "vision_config": Read(OBJECT),
        "image_token_index": Read(INDEX, 32000),
        "image_token_id": Read(INDEX),
        "vision_feature_layer": Read(LAYER, -2),
        "vision_feature_select_strategy": Read(WORD, "default"),
        "projector_hidden_act": Read(WORD, "gelu"),
        "tie_word_embeddings": Read(FLAG, False),
    },
    fixed={**CAUSAL, "multimodal_projector_bias": True},
    fixed_or_null=ONE_WAY,
    idle=frozenset({"image_seq_length", "vocab_size"}),
    architectures=("LlavaForConditionalGeneration", "LlavaModel"),
)
"""LlavaConfig."""

ORIGINAL_LLAVA = Keys(
    read={
        **LLAMA.keys.read,
        "mm_vision_select_layer": Read(LAYER),
        "mm_vision_select_feature": Read(WORD, "patch"),
        "mm_projector_type": Read(WORD),
        "mm_hidden_size": Read(COUNT),
        "mm_use_im_start_end": Read(FLAG),
        "mm_vision_tower": Read(WORD),
        "image_aspect_ratio": Read(WORD),
    },
    fixed={**LLAMA.keys.fixed, "mm_resampler_type": None},
    fixed_or_null={**LLAMA.keys.fixed_or_null, "mm_patch_merge_type": "flat"},
    idle=LLAMA.keys.idle
    | frozenset(
        {
            *("vision_tower", "mm_use_im_patch_token", "use_mm_proj"),
            *("image_grid_pinpoints", "image_crop_resolution", "image_split_resolution", "delay_load", "version"),
            *("tune_mm_mlp_adapter", "freeze_mm_mlp_adapter", "freeze_backbone", "unfreeze_mm_vision_tower"),
            *("tune_mm_vision_resampler", "freeze_mm_vision_resampler", "pretrain_mm_mlp_adapter"),
            *("mm_projector_lr", "mm_vision_tower_lr", "mm_vision_tower_path"),
        }
    ),
    architectures=(*LLAMA.keys.architectures, "LlavaLlamaForCausalLM", "LlavaLlamaModel", "LlavaLLaMAForCausalLM"),
)
"""The configuration of the original LLaVA: its own keys among those of Llama."""
