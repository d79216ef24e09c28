"""NeVA, NeMo's LLaVA: Llama-2-chat and CLIP-L/14-224 joined by one linear layer, trained in two stages.

Hyperparameters, tensor parallelism and micro batches are those of NeMo's pages for eight GPUs of 80 GB.
"""

from neva_recipes import parts
from neva_recipes._assembly import assemble, check_size, rates_of, split_over_node
from neva_recipes.config import Draft, LlavaDataConfig, LlavaModelConfig, LlavaRecipe, OptimConfig, config
from neva_recipes.families.published import LLAMA_2_CHAT, NevaSize

__all__ = ["NevaSize", "finetune", "pretrain"]


def pretrain(size: NevaSize = "7b") -> Draft[LlavaRecipe]:
    """NeVA stage 1: train the projector on image captions.

    Language model and vision tower are frozen. 2170 steps at a global batch of 256 are about one epoch of
    blip_laion_cc_sbu_558k. The template is that of the language model in both stages.

    The language model is split over 4 (7b) or 8 (13b) GPUs of 80 GB, as NeMo does, with 32 samples at once: captions
    are short, so a sample takes about 300 of the 4096 tokens it may have.

    Args:
        size: Size of the language model.
    """
    recipe = _neva("neva.pretrain", size)
    recipe.model.language.freeze = True
    recipe.data.image_aspect_ratio = "square"
    recipe.data.global_batch_size = 256
    recipe.optim.lr = rates_of("neva.pretrain").published
    recipe.optim.min_lr = 2e-5
    recipe.optim.warmup_steps = 70
    recipe.trainer.max_steps = 2170
    split_over_node(recipe, _TENSOR_PARALLEL[size], micro_batch_size=32)
    return recipe


def finetune(size: NevaSize = "7b") -> Draft[LlavaRecipe]:
    """NeVA stage 2: train language model and projector.

    model.projector.from_pretrained names the run of stage 1; without it the projector starts from random weights.
    5190 steps at a global batch of 128 are about one epoch of llava_v1_5_mix665k.

    The language model is split over 4 (7b) or 8 (13b) GPUs of 80 GB, as NeMo does. Weights, gradients and optimizer
    state then take 19 (7b) or 27 GiB (13b) on each, so 4 samples of 4096 tokens fit without recomputing activations.

    Args:
        size: Size of the language model.
    """
    recipe = _neva("neva.finetune", size)
    recipe.data.image_aspect_ratio = "pad"
    recipe.data.global_batch_size = 128
    recipe.optim.lr = rates_of("neva.finetune").published
    recipe.optim.min_lr = 2e-7
    recipe.optim.warmup_steps = 150
    recipe.trainer.max_steps = 5190
    split_over_node(recipe, _TENSOR_PARALLEL[size], micro_batch_size=4)
    return recipe


_TENSOR_PARALLEL: dict[NevaSize, int] = {"7b": 4, "13b": 8}


def _neva(name: str, size: NevaSize) -> Draft[LlavaRecipe]:
    """Return what both stages share."""
    check_size(name, size, LLAMA_2_CHAT)
    vision = parts.clip_vit_large(224)
    vision.image_token_len = 256
    model = config(
        LlavaModelConfig,
        language=parts.llama(size, LLAMA_2_CHAT[size]),
        vision=vision,
        projector=parts.projector("linear"),
    )
    data = config(LlavaDataConfig, conv_template="llama_2", sequence_length=4096)
    optim = config(OptimConfig, adam_beta2=0.95, warmup_ratio=None, warmup_steps=0)
    return assemble(LlavaRecipe, name, model, data, optim, max_steps=1)
