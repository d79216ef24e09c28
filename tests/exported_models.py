"""Exports of models that are in memory, as no checkpoint has to be written for them."""

import torch

from neva_model.checkpoints.huggingface.export import export_huggingface
from neva_model.model import global_parameters
from neva_recipes.families import vision_family


class ModelWeights:
    """The weights of a model, for an export."""

    def __init__(self, model):
        rows = model.language.unpadded_vocab_size
        named = {f"language.{name}": weight for name, weight in global_parameters(model.language)}
        for name in ("language.embedding.word_embeddings.weight", "language.output_layer.weight"):
            if name in named:
                named[name] = named[name][:rows]
        if model.vision is not None:
            family = vision_family(model.model_config.vision)
            tower = model.vision.state_dict().items()
            named |= {f"vision.{family.published_name(name)}": weight for name, weight in tower}
            named |= {f"projector.{name}": weight for name, weight in model.projector.state_dict().items()}
        # Transformer Engine keeps a norm in the layer that follows it.
        for weight in model.language.family.layer:
            if weight.fused is not None:
                named |= {name.replace(weight.fused, weight.core): found for name, found in named.items()}
        self._named = named

    def dtype(self, name):
        return self._named[name].dtype

    @torch.no_grad()
    def read(self, name):
        return self._named[name].detach()


def export_model(model, recipe, tokenizer, directory, **options):
    export_huggingface(ModelWeights(model), recipe, tokenizer, directory, **options)
