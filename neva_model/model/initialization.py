"""Initial weights that depend only on the seed and the weight's name, never on the layout.

Every weight is drawn whole from its own generator and then cut, so a model has the same initial weights on any number
of tensor-parallel and pipeline-parallel ranks.
"""

import hashlib
import math
import re
from collections.abc import Iterator

import torch

from neva_model.model.language import LanguageModel
from neva_recipes.families import Layout

__all__ = ["global_parameters", "initialize_language", "initialize_projector", "name_seed"]


def name_seed(seed: int, name: str) -> int:
    """Return the seed of the generator of one weight."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:7], "big")


def global_parameters(language: LanguageModel) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Yield this rank's parameters under names that count layers over the whole model, from 0.

    A last stage's copy of shared embeddings has the name of the embeddings.
    """
    for name, parameter in language.named_parameters():
        match = re.match(r"decoder\.layers\.(\d+)\.", name)
        if match:
            layer = language.decoder.layers[int(match[1])]
            name = f"decoder.layers.{layer.layer_number - 1}.{name[match.end() :]}"
        elif name == "output_layer.weight" and language.share_embeddings_and_output_weights:
            name = "embedding.word_embeddings.weight"
        yield name, parameter


@torch.no_grad()
def initialize_language(language: LanguageModel, std: float, seed: int) -> None:
    """Draw the language model's weights.

    Norms are one and biases zero. Other weights are normal with `std`, or with `std / sqrt(2 x layers)` if they write
    to the residual stream (the GPT-2 paper). Padding rows of the vocabulary are zero.
    """
    group = language.tp_group
    for name, parameter in global_parameters(language):
        weight, _ = language.family.weight(name)
        if not weight.is_matrix:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        writes_residual = name.endswith(("linear_proj.weight", "linear_fc2.weight"))
        scale = std / math.sqrt(2 * language.config.num_layers) if writes_residual else std
        dimension = 1 if weight.layout is Layout.COLUMNS else 0
        ranks, rank = (1, 0) if weight.layout is Layout.WHOLE else (group.size(), group.rank())
        shape = list(parameter.shape)
        shape[dimension] *= ranks
        rows = language.unpadded_vocab_size if weight.layout is Layout.VOCABULARY else shape[0]
        drawn = torch.empty(rows, shape[1], device=parameter.device)
        drawn.normal_(0.0, scale, generator=_generator(name_seed(seed, name), parameter.device))
        whole = drawn.new_zeros(shape)
        whole[: drawn.shape[0]] = drawn
        # A stack holds matrices of one height, such as SwiGLU's two, and each rank has its share of every one.
        blocks = whole.chunk(len(weight.parts)) if weight.layout is Layout.STACKED else (whole,)
        parameter.copy_(torch.cat([block.chunk(ranks, dimension)[rank] for block in blocks]))


@torch.no_grad()
def initialize_projector(projector: torch.nn.Module, seed: int) -> None:
    """Draw weights and biases uniformly within 1 / sqrt(inputs), PyTorch's default for linear layers."""
    for name, module in projector.named_modules():
        if isinstance(module, torch.nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            for kind, parameter in module.named_parameters():
                generator = _generator(name_seed(seed, f"projector.{name}.{kind}"), parameter.device)
                parameter.uniform_(-bound, bound, generator=generator)


def _generator(seed: int, device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)
