"""Text-only language models of the Llama family."""

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

__all__ = ["pretrain"]


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
    recipe = assemble(
        Recipe,
        "gpt.pretrain",
        config(ModelConfig, language=parts.llama(size)),
        config(TextDataConfig, sequence_length=4096, global_batch_size=1024),
        config(
            OptimConfig,
            lr=rates_of("gpt.pretrain").published,
            min_lr=3e-5,
            warmup_steps=2000,
            warmup_ratio=None,
            weight_decay=0.1,
            adam_beta2=0.95,
            adam_eps=1e-5,
        ),
        max_steps=500_000,
    )
    if size == "tiny":
        recipe.optim.warmup_steps = 10
        scale_to_laptop(recipe, lr=rates_of("gpt.pretrain").tiny, max_steps=100)
    else:
        recompute_every_layer(recipe)
        split_over_node(recipe, tensor_model_parallel_size=2 if size == "7b" else 4, micro_batch_size=4)
    return recipe
