"""LLaVA-1.5: Vicuna and CLIP-L/14-336 joined by a two-layer projector, trained in two stages.

Hyperparameters are those of the original's published training scripts. How the work is split over GPUs is our own
choice for eight of 80 GB and does not change the result; the memory given is arithmetic, not a measurement.
"""

from typing import get_args

from neva_recipes import parts
from neva_recipes._assembly import (
    assemble,
    check_size,
    rates_of,
    recompute_every_layer,
    scale_to_laptop,
    split_over_node,
)
from neva_recipes.config import (
    RANDOM,
    Draft,
    LlavaDataConfig,
    LlavaModelConfig,
    LlavaRecipe,
    LoraConfig,
    OptimConfig,
    config,
)
from neva_recipes.families.published import VICUNA
from neva_recipes.pipeline import Evaluate, Export, Pipeline, Stage

__all__ = ["LlavaSize", "finetune", "lora", "pipeline", "pretrain", "qlora"]

LlavaSize = parts.LlamaSize


def pretrain(size: LlavaSize = "7b") -> Draft[LlavaRecipe]:
    """LLaVA-1.5 stage 1: train the projector on captions.

    Language model and vision tower are frozen. 2181 steps are one epoch of blip_laion_cc_sbu_558k at a global batch of
    256. With data of your own, set trainer.max_steps, or trainer.max_steps=none trainer.max_epochs=1.

    7b and 13b are laid out for 8 GPUs of 80 GB: a frozen model has no optimizer state, so each GPU holds all of it
    (13 and 24 GiB) and none talks to another inside a layer. Recomputing activations leaves room for 32 (7b) or 16
    (13b) full-length samples at once.

    tiny trains 400 steps on a laptop CPU, in fp32, with a random language model until
    model.language.from_pretrained names one, such as a run of gpt.pretrain.

    Args:
        size: Size of the language model.
    """
    recipe = _llava("llava.pretrain", size)
    recipe.model.language.freeze = True
    recipe.data.data_path = None if size == "tiny" else "blip_laion_cc_sbu_558k.json"
    recipe.data.conv_template = "plain"
    recipe.data.image_aspect_ratio = "square"
    recipe.data.global_batch_size = 256
    recipe.optim.lr = rates_of("llava.pretrain").published
    recipe.trainer.max_steps = 2181
    if size == "tiny":
        scale_to_laptop(recipe, lr=rates_of("llava.pretrain").tiny, max_steps=400)
    else:
        split_over_node(recipe, tensor_model_parallel_size=1, micro_batch_size=32 if size == "7b" else 16)
    return recipe


def finetune(size: LlavaSize = "7b") -> Draft[LlavaRecipe]:
    """LLaVA-1.5 stage 2: train language model and projector.

    model.projector.from_pretrained names the run of stage 1; without it the projector starts from random weights.
    5198 steps are one epoch of llava_v1_5_mix665k at a global batch of 128. With data of your own, set
    trainer.max_steps, or trainer.max_steps=none trainer.max_epochs=1.

    7b and 13b are laid out for 8 GPUs of 80 GB. Weights, gradients and the sharded optimizer state of 7b take 47 GiB
    on each GPU without splitting a layer, and 4 full-length samples fit at once. 13b would take 91 GiB; over 4 GPUs it
    takes 37, and 8 samples fit at once. For other GPUs and lengths `nemo-run fit` lists layouts, the fastest first.

    tiny trains 800 steps on a laptop CPU, in fp32, from random weights unless from_pretrained names others. Beside the
    projector of a run, model.vision.from_pretrained and model.language.from_pretrained name what it was trained beside.

    Args:
        size: Size of the language model.
    """
    recipe = _llava("llava.finetune", size)
    recipe.data.data_path = None if size == "tiny" else "llava_v1_5_mix665k.json"
    recipe.data.conv_template = "v1"
    recipe.data.image_aspect_ratio = "pad"
    recipe.data.group_by_modality_length = True
    recipe.data.global_batch_size = 128
    recipe.optim.lr = rates_of("llava.finetune").published
    recipe.trainer.max_steps = 5198
    if size == "tiny":
        recipe.model.language.from_pretrained = recipe.model.projector.from_pretrained = RANDOM
        scale_to_laptop(recipe, lr=rates_of("llava.finetune").tiny, max_steps=800)
    elif size == "7b":
        split_over_node(recipe, tensor_model_parallel_size=1, micro_batch_size=4)
    else:
        split_over_node(recipe, tensor_model_parallel_size=4, micro_batch_size=8)
    return recipe


def lora(size: LlavaSize = "7b") -> Draft[LlavaRecipe]:
    """LLaVA-1.5 stage 2 with LoRA beside fixed weights.

    Rank 128, alpha 256 and the learning rates, ten times as high for the adapters as for the projector, are those of
    the original's finetune_lora.sh. Checkpoints hold adapters and projector alone; `nemo-run export` merges them into
    the weights, `nemo-run convert RUN DIR --layout peft` writes them for PEFT.

    7b and 13b are laid out for 8 GPUs of 80 GB, each with the whole model, for fixed weights have neither gradients nor
    optimizer state. For other GPUs and lengths `nemo-run fit` lists layouts, the fastest first.

    tiny trains 800 steps on a laptop CPU, in fp32, at rank 8, from random weights unless from_pretrained names others.

    Args:
        size: Size of the language model.
    """
    recipe = finetune(size)
    recipe.name = "llava.lora"
    recipe.model.language.lora = config(LoraConfig, rank=8 if size == "tiny" else 128, dropout=0.05)
    rates = rates_of("llava.lora")
    recipe.optim.lr = rates.tiny if size == "tiny" else rates.published
    recipe.optim.lr_of = {"projector": rates_of("llava.finetune").tiny if size == "tiny" else 2e-5}
    if size != "tiny":
        split_over_node(recipe, tensor_model_parallel_size=1, micro_batch_size=16 if size == "7b" else 8)
    return recipe


def qlora(size: LlavaSize = "7b") -> Draft[LlavaRecipe]:
    """LLaVA-1.5 stage 2 with QLoRA: fixed weights in 4 bits.

    llava.lora with rank 64 and alpha 16, as the original's finetune_qlora.sh, and the fixed weights of the language
    model's linear layers in 4 bits (NF4 with double quantization), which takes the package bitsandbytes. Merged
    weights are those of the 4 bits with the adapters, in 16 bits.

    7b and 13b are laid out for 8 GPUs of 24 GB, each with the whole model. tiny trains 800 steps on a laptop CPU, in
    fp32, from random weights unless from_pretrained names others.

    Args:
        size: Size of the language model.
    """
    recipe = lora(size)
    recipe.name = "llava.qlora"
    recipe.model.language.quantize = "nf4"
    if size != "tiny":
        recipe.model.language.lora = config(LoraConfig, rank=64, alpha=16.0, dropout=0.05)
        recipe.data.micro_batch_size = 2
    return recipe


def pipeline(size: LlavaSize = "7b") -> Pipeline:
    """All of LLaVA-1.5: pretrain, finetune, export, evaluate.

    The projector of finetune is that of pretrain, and so are the random language model and vision tower of tiny. What
    finetune has trained is exported as a Hugging Face directory, and answers the questions of evaluate.data.

    Args:
        size: Size of the language model.
    """
    first = Stage("pretrain", pretrain(size))
    recipe = finetune(size)
    for part in (recipe.model.language, recipe.model.vision, recipe.model.projector):
        if part.from_pretrained in (None, RANDOM):  # not published: only pretrain has the weights
            part.from_pretrained = first.output
    second = Stage("finetune", recipe)
    export = Stage("export", config(Export, model=second.output))
    evaluate = Stage("evaluate", config(Evaluate, model=second.output))  # type: ignore[call-arg]
    return Pipeline("llava.pipeline", first >> second >> export >> evaluate)


def _llava(name: str, size: LlavaSize) -> Draft[LlavaRecipe]:
    """Return what both stages share."""
    check_size(name, size, get_args(LlavaSize))
    model = config(
        LlavaModelConfig,
        language=parts.llama(size, None if size == "tiny" else VICUNA[size]),
        vision=parts.clip_tiny() if size == "tiny" else parts.clip_vit_large(336),
        projector=parts.projector("mlp2x_gelu"),
    )
    recipe = assemble(LlavaRecipe, name, model, config(LlavaDataConfig), config(OptimConfig), max_steps=1)
    if size != "tiny":
        recompute_every_layer(recipe)
    return recipe
