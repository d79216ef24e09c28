"""Small recipes, transformers models of the same shape, and batches for both."""

import dataclasses
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    CLIPVisionConfig,
    Dinov2Config,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    SiglipVisionConfig,
)

from neva_model.checkpoints.huggingface.pretrained import load_pretrained
from neva_model.model import build_model
from neva_recipes.config import (
    CheckpointConfig,
    LanguageConfig,
    LlavaDataConfig,
    LoggingConfig,
    ModelConfig,
    OptimConfig,
    ParallelConfig,
    PrecisionConfig,
    ProjectorConfig,
    Recipe,
    TextDataConfig,
    TrainerConfig,
    VisionConfig,
)
from neva_recipes.families import image_length, vision_family
from neva_recipes.plan.data.files import check_files

VOCABULARY = 100
IMAGE_ROW = VOCABULARY
TOKENS_PER_IMAGE = 4


def changed(node, changes):
    """Return a recipe with dotted fields replaced."""
    for path, value in changes.items():
        name, _, rest = path.partition(".")
        node = dataclasses.replace(node, **{name: changed(getattr(node, name), {rest: value}) if rest else value})
    return node


def llava_recipe(changes=None):
    recipe = Recipe(
        name="tiny",
        model=ModelConfig(
            language=LanguageConfig(
                num_layers=4,
                hidden_size=32,
                ffn_hidden_size=48,
                num_attention_heads=4,
                num_query_groups=2,
                vocab_size=VOCABULARY,
                max_position_embeddings=64,
                init_method_std=0.2,  # large enough for every weight to show in the loss
            ),
            vision=VisionConfig(
                num_layers=3, hidden_size=16, ffn_hidden_size=24, num_attention_heads=2, image_size=28, patch_size=14
            ),
            projector=ProjectorConfig(),
        ),
        data=LlavaDataConfig(sequence_length=32, micro_batch_size=2, global_batch_size=8),
        parallel=ParallelConfig(),
        precision=PrecisionConfig(precision="fp32"),
        optim=OptimConfig(),
        trainer=TrainerConfig(max_steps=2),
        checkpoint=CheckpointConfig(),
        logging=LoggingConfig(),
    )
    return changed(recipe, changes or {})


def text_recipe(changes=None):
    recipe = llava_recipe()
    data = TextDataConfig(sequence_length=32, micro_batch_size=2, global_batch_size=8)
    model = dataclasses.replace(recipe.model, vision=None, projector=None)
    return changed(dataclasses.replace(recipe, model=model, data=data), changes or {})


LANGUAGES = {
    "llama": LlamaConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "mistral": MistralConfig,
    "phi3": Phi3Config,
}
"""transformers' configuration of each family of language models that takes the sizes by the names of Llama's."""


def text_config(language, vocabulary=None):
    own = {"sliding_window": language.sliding_window} if language.family in ("mistral", "phi3") else {}
    return LANGUAGES[language.family](
        **own,
        vocab_size=vocabulary or language.vocab_size,
        hidden_size=language.hidden_size,
        intermediate_size=language.ffn_hidden_size,
        num_hidden_layers=language.num_layers,
        num_attention_heads=language.num_attention_heads,
        num_key_value_heads=language.num_query_groups,
        head_dim=language.head_size,
        max_position_embeddings=language.max_position_embeddings,
        rms_norm_eps=language.layernorm_epsilon,
        rope_theta=language.rotary_base,
        tie_word_embeddings=language.share_embeddings_and_output_weights,
        attention_dropout=language.attention_dropout,
        pad_token_id=None,
    )


TOWERS = {
    "clip": (CLIPVisionConfig, {}),
    "siglip": (SiglipVisionConfig, {"vision_use_head": False}),
    "dinov2": (Dinov2Config, {}),
}
"""transformers' configuration of each family, and what it needs beside the sizes."""


DINOV2 = {
    "model.vision.vision_model_type": "dinov2",
    "model.vision.hidden_act": "gelu",
    "model.vision.ffn_hidden_size": 32,
}
"""What makes the tower of `llava_recipe` one of DINOv2, whose feed-forward layers are a few times wider."""


def tower_config(vision):
    common = {
        "hidden_size": vision.hidden_size,
        "intermediate_size": vision.ffn_hidden_size,
        "num_hidden_layers": vision.num_layers,
        "num_attention_heads": vision.num_attention_heads,
        "image_size": vision.position_image_size or vision.image_size,
        "patch_size": vision.patch_size,
        "hidden_act": vision.hidden_act,
        "layer_norm_eps": vision.layernorm_epsilon,
    }
    if vision.vision_model_type == "dinov2":
        common["mlp_ratio"] = common.pop("intermediate_size") // vision.hidden_size
    cls, more = TOWERS[vision.vision_model_type]
    return cls(**common, **more)


@torch.no_grad()
def _draw(model, seed=0):
    """Give every weight, norms and biases included, a value that matters."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        drawn = torch.empty(parameter.shape).normal_(0.0, 0.15, generator=generator)
        parameter.copy_(drawn + 1.0 if parameter.dim() == 1 else drawn)
    return model.eval()


def hf_llava(recipe):
    """Return an independent transformers model of a recipe's shape, with one more row for its image token."""
    vision = recipe.model.vision
    full = vision.vision_select_feature == "cls_patch" or not vision_family(vision).has_class_token
    config = LlavaConfig(
        text_config=text_config(recipe.model.language, recipe.model.language.vocab_size + 1),
        vision_config=tower_config(vision),
        image_token_index=recipe.model.language.vocab_size,
        image_seq_length=image_length(vision),
        vision_feature_layer=vision.vision_select_layer,
        vision_feature_select_strategy="full" if full else "default",
        attn_implementation="eager",
    )
    return _draw(LlavaForConditionalGeneration(config))


def hf_llama(recipe):
    return _draw(LlamaForCausalLM(text_config(recipe.model.language)))


def hf_language(recipe):
    """Return an independent transformers model of the family of a recipe's language model."""
    return _draw(AutoModelForCausalLM.from_config(text_config(recipe.model.language), attn_implementation="eager"))


def pretrained(recipe, directory: Path):
    """Return the recipe with every part starting from one directory."""
    parts = [part for part in ("language", "vision", "projector") if getattr(recipe.model, part) is not None]
    return changed(recipe, {f"model.{part}.from_pretrained": str(directory) for part in parts})


def batch(images_per_row, length, seed=0, tokens_per_image=TOKENS_PER_IMAGE):
    """Return a microbatch whose rows hold the given numbers of images, the rows right-padded to `length`."""
    generator = torch.Generator().manual_seed(seed)
    rows = len(images_per_row)
    tokens = torch.randint(1, VOCABULARY, (rows, length), generator=generator)
    labels = torch.randint(1, VOCABULARY, (rows, length), generator=generator)
    for row, number in enumerate(images_per_row):
        for image in range(number):
            start = 1 + image * (tokens_per_image + 2)
            tokens[row, start : start + tokens_per_image] = -200
            labels[row, start - 1 : start + tokens_per_image - 1] = -100
        padding = length - row
        tokens[row, padding:] = 0
        labels[row, padding - 1 :] = -100
    return {
        "tokens": tokens,
        "labels": labels,
        "position_ids": torch.arange(length).expand(rows, -1),
        "images": torch.randn(sum(images_per_row), 3, 28, 28, generator=generator),
    }


def load_source(recipe):
    """Return the model of a recipe with the weights of the Hugging Face directories that it names."""
    model = build_model(recipe, pre_process=True, post_process=True).eval()
    load_pretrained(model, recipe)
    return model


def findings_of_source(recipe):
    """Return what the plan says of those directories."""
    return [finding for finding in check_files(recipe) if finding.code in ("checkpoint-unusable", "shape-mismatch")]
