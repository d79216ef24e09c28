"""Language models on plain text: from the start, or from weights that are there."""

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
from neva_recipes.config import Draft, ModelConfig, OptimConfig, Recipe, TextDataConfig, config
from neva_recipes.families.published import LLAMA_2

__all__ = ["continue_pretrain", "pretrain"]


def pretrain(size: parts.LlamaSize = "7b") -> Draft[Recipe]:
    """Train a Llama on plain text from random weights.

    data.data_path and data.tokenizer must be set. 7b and 13b have Llama 2's vocabulary: for a tokenizer of another
    size set model.language.vocab_size too. With tiny it becomes that of the tokenizer unless it is set.

    7b and 13b follow the Llama 2 paper (arXiv 2307.09288, section 2.2): 4 million tokens a step in sequences of 4096,
    500,000 steps, 2000 of them warm-up, learning rate 3e-4 falling to a tenth on a cosine, AdamW with betas 0.9 and
    0.95, eps 1e-5, weight decay 0.1, gradients clipped at 1. They are laid out for one machine of 8 GPUs of 80 GB, to
    be multiplied with trainer.num_nodes: each language model is split over 2 (7b) or 4 (13b) GPUs, where it takes
    28 or 37 GiB with gradients and sharded optimizer state, and activations are recomputed.

    tiny trains 100 steps on a laptop CPU, in fp32.

    Args:
        size: Size of the language model.
    """
    check_size("gpt.pretrain", size, get_args(parts.LlamaSize))
    recipe = _on_text("gpt.pretrain", size)
    recipe.data.global_batch_size = 1024
    recipe.optim.min_lr = 3e-5
    recipe.optim.warmup_steps = 2000
    recipe.optim.warmup_ratio = None
    recipe.optim.adam_eps = 1e-5
    recipe.trainer.max_steps = 500_000
    if size == "tiny":
        recipe.optim.warmup_steps = 10
        scale_to_laptop(recipe, lr=rates_of("gpt.pretrain").tiny, max_steps=100)
    return recipe


def continue_pretrain(size: parts.LlamaSize = "7b") -> Draft[Recipe]:
    """Go on training a language model on more text, as of another language.

    data.data_path must be set, and model.language=DIR takes a model of any family in place of Llama 2. Text of what
    the model knows already belongs among the new one, lest it forget: the paper below replays a twentieth, or a quarter
    where the new text is far from the old, as another language is. With validation files of both, each has a
    val_loss and a val_perplexity of its own, from before the first step on, so that forgetting shows as it happens.

    The learning rate follows Ibrahim et al. 2024 (arXiv 2403.08763): warmed up again over the first hundredth of the
    steps, to the peak of their 10B model, 1.2e-4, then falling to a tenth of it on a cosine; AdamW with betas 0.9 and
    0.95, weight decay 0.1, gradients clipped at 1. 2 million tokens a step are about their 2.3, in sequences of the
    4096 positions of Llama 2. The run is one pass through the data. The layout is that of gpt.pretrain.

    tiny trains 100 steps on a laptop CPU, in fp32, and needs a model.language.from_pretrained, such as a run of
    gpt.pretrain.

    Args:
        size: Size of the language model.
    """
    check_size("gpt.continue_pretrain", size, get_args(parts.LlamaSize))
    recipe = _on_text("gpt.continue_pretrain", size)
    recipe.data.global_batch_size = 512
    recipe.optim.min_lr = 1.2e-5
    recipe.optim.warmup_ratio = 0.01
    recipe.trainer.max_steps = None
    recipe.trainer.max_epochs = 1
    recipe.trainer.val_before_training = True
    if size == "tiny":
        scale_to_laptop(recipe, lr=rates_of("gpt.continue_pretrain").tiny, max_steps=100)
        recipe.trainer.max_epochs = None
    else:
        recipe.model.language.from_pretrained = LLAMA_2[size]
    return recipe


def _on_text(name: str, size: parts.LlamaSize) -> Draft[Recipe]:
    """Return what both recipes have in common; for tiny the laptop scale is still to come."""
    recipe = assemble(
        Recipe,
        name,
        config(ModelConfig, language=parts.llama(size)),
        config(TextDataConfig, sequence_length=4096),
        config(OptimConfig, lr=rates_of(name).published, weight_decay=0.1, adam_beta2=0.95),
        max_steps=1,
    )
    if size != "tiny":
        recompute_every_layer(recipe)
        split_over_node(recipe, tensor_model_parallel_size=2 if size == "7b" else 4, micro_batch_size=4)
    return recipe
