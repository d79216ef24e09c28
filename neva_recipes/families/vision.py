"""What a family of vision towers declares, and what follows from it for a tower of the family."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from neva_recipes.config import PlainTable, VisionConfig
from neva_recipes.families.keys import ONE_WAY, Keys, Read, read_values
from neva_recipes.families.tensors import Shape
from neva_recipes.families.values import COUNT, LAYERS, NUMBER, SIDE, WORD

__all__ = ["VisionFamily", "layers_run", "patches_of", "tower_keys"]


def tower_keys(architectures: tuple[str, ...], *, patch_size: int, hidden_act: str, layer_norm_eps: float) -> Keys:
    """Return the keys of a tower's config.json, which differ by the defaults of transformers' class.

    Args:
        architectures: Classes that save such a tower.
        patch_size: Default side of a patch.
        hidden_act: Default activation.
        layer_norm_eps: Default epsilon.
    """
    return Keys(
        read={
            "hidden_size": Read(COUNT, 768),
            "intermediate_size": Read(COUNT, 3072),
            "num_hidden_layers": Read(LAYERS, 12),
            "num_attention_heads": Read(COUNT, 12),
            "image_size": Read(SIDE, 224),
            "patch_size": Read(SIDE, patch_size),
            "hidden_act": Read(WORD, hidden_act),
            "layer_norm_eps": Read(NUMBER, layer_norm_eps),
        },
        fixed={"num_channels": 3},
        fixed_or_null={**ONE_WAY, "is_causal": False},
        idle=frozenset({"projection_dim", "vocab_size", "vision_use_head", "tie_word_embeddings"}),
        architectures=architectures,
    )


_WIDENED = "intermediate_size"


@dataclass(frozen=True)
class VisionFamily:
    """A family of vision transformers that transformers computes.

    A dimension of a tensor is a number, or `hidden`, `ffn`, `patch` or `positions`.

    Attributes:
        name: Its name in a recipe, as in `model.vision.vision_model_type=clip`.
        title: Its name in messages.
        model_type: The `model_type` of a tower in a config.json, which is also that of transformers' class. AutoModel
            must know the class, and it must have `embeddings`.
        whole_model_type: The `model_type` of the model of images and texts that towers are published in; `None` if they
            are published alone.
        keys: The keys of a tower's config.json; its architectures include that of the whole model.
        fields: Keys of its config.json, and the recipe's fields with the same meaning.
        settings: Values of its config.json that are the same in every recipe.
        activations: The activations that its towers are trained with.
        has_class_token: Whether it puts a class token before the patches.
        needs_whole_patches: Whether the image must be a multiple of the patch; otherwise the rest is left out.
        mlp_ratio: The key that says how many times wider the feed-forward layers are; `None` where `intermediate_size`
            is their width.
        interpolates: Whether it takes images of another size than its position embeddings, which it then interpolates.
        has_config_dict: Whether transformers fills a `vision_config_dict` of the whole model with defaults, and
            overrides its `vision_config` with it.
        crops: Whether its image processor scales the shorter side and crops the longer one; otherwise it scales both.
        image_processor: transformers' class of its image processor.
        image_settings: Settings of the image processor where the weights bring none, beside the size.
        first_norm: The module between embeddings and layers; `None` if there is none.
        inner: Prefix of its tensors within a whole model or a LLaVA, beside that of the tower.
        patches: The tensor that patches are multiplied with.
        before: The tensors before the layers, and their dimensions.
        takes_mask: Whether its layers are called with a mask of attention, which is none.
        layers: The list of its layers, in transformers' class and in the names of tensors.
        layer: The tensors of one layer, as they are published.
        layer_scales: How many outputs of a layer are multiplied by weights, one for each channel.
        modules: Parts of the names of a layer's tensors that newer releases of transformers name otherwise, with these
            names; a directory may have either.
        after: The tensors that patch features do not need: those after the layers, and others that no image meets.
        refused: Other values of `model_type` that its relatives are published with, and why these are refused.
    """

    name: str
    title: str
    model_type: str
    whole_model_type: str | None
    keys: Keys
    fields: Mapping[str, str]
    activations: tuple[str, ...]
    has_class_token: bool
    needs_whole_patches: bool
    crops: bool
    image_processor: str
    first_norm: str | None
    before: Mapping[str, tuple[str | int, ...]]
    layer: Mapping[str, tuple[str | int, ...]]
    after: Mapping[str, tuple[str | int, ...]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    mlp_ratio: str | None = None
    interpolates: bool = False
    image_settings: Mapping[str, Any] = field(default_factory=dict)
    inner: str = "vision_model."
    patches: str = "embeddings.patch_embedding.weight"
    takes_mask: bool = True
    layers: str = "encoder.layers"
    layer_scales: int = 0
    modules: Mapping[str, str] = field(default_factory=dict)
    has_config_dict: bool = False
    refused: Mapping[str, str] = field(default_factory=dict)

    def read(self, fields: Mapping[str, object], place: str = "") -> PlainTable:
        """Return what a config.json says of a tower, by `fields`, with the defaults of transformers' class.

        Args:
            fields: The configuration.
            place: Prefix of its keys in messages: the name of its group and a dot.

        Raises:
            ValueError: A value has the wrong type or is out of range.
        """
        tower = read_values(fields, self.keys, place)
        for key in ("image_size", "patch_size"):
            if isinstance(tower[key], list):
                tower[key] = tower[key][0]
        if self.mlp_ratio is not None:
            tower[_WIDENED] = tower["hidden_size"] * tower[self.mlp_ratio]
            if not COUNT.accepts(tower[_WIDENED]):
                raise ValueError(f"{place}{self.said(_WIDENED)} is {tower[_WIDENED]}, expected {COUNT.expected}")
        return tower

    def sizes(self, vision: VisionConfig) -> PlainTable:
        """Return the recipe's values by the keys of `fields`; `image_size` is that of the position embeddings."""
        sizes = {theirs: getattr(vision, ours) for theirs, ours in self.fields.items()}
        return {**sizes, "image_size": vision.position_side}

    def said(self, key: str) -> str:
        """Return how config.json says what a key of `fields` stands for."""
        return f"hidden_size * {self.mlp_ratio}" if key == _WIDENED and self.mlp_ratio is not None else key

    def config_json(self, vision: VisionConfig) -> PlainTable:
        """Return what a config.json says of a tower, without the defaults of transformers' class."""
        sizes = self.sizes(vision)
        if self.mlp_ratio is not None:
            sizes[self.mlp_ratio] = sizes.pop(_WIDENED) // vision.hidden_size
        return {**sizes, **self.settings}

    def published_name(self, name: str) -> str:
        """Return the published name of a tensor that transformers' class names so."""
        for published, module in self.modules.items():
            name = name.replace(module, published)
        return name

    def module_name(self, name: str) -> str:
        """Return the name that newer releases of transformers have for a published tensor."""
        for published, module in self.modules.items():
            name = name.replace(published, module)
        return name

    def shapes(self, tensors: Mapping[str, tuple[str | int, ...]], tower: Mapping[str, Any]) -> dict[str, Shape]:
        """Return the shapes of tensors, by their names.

        Args:
            tensors: `before`, `layer` or `after`.
            tower: The tower's sizes, by the keys of `fields`.
        """
        patch = tower["patch_size"]
        sizes = {
            "hidden": tower["hidden_size"],
            "ffn": tower["intermediate_size"],
            "patch": patch,
            "positions": (tower["image_size"] // patch) ** 2 + self.has_class_token,
        }
        return {
            name: tuple(axis if isinstance(axis, int) else sizes[axis] for axis in axes)
            for name, axes in tensors.items()
        }

    def parameters(self, tensors: Mapping[str, tuple[str | int, ...]], vision: VisionConfig) -> int:
        """Return how many weights tensors have.

        Args:
            tensors: `before`, `layer` or `after`.
            vision: A tower of this family.
        """
        return sum(map(math.prod, self.shapes(tensors, self.sizes(vision)).values()))

    def skips_first(self, vision: VisionConfig) -> bool:
        """Return whether the first token of the selected hidden state is left out."""
        selected = vision.vision_select_feature
        return selected == "skip_first" or (self.has_class_token and selected == "patch")

    def image_length(self, vision: VisionConfig) -> int:
        """Return the number of sequence positions that an image takes."""
        return patches_of(vision) + self.has_class_token - self.skips_first(vision)


def patches_of(vision: VisionConfig) -> int:
    """Return the number of patches of an image."""
    return (vision.image_size // vision.patch_size) ** 2


def layers_run(vision: VisionConfig) -> int:
    """Return how many layers of a tower the selected features need; the layers above never run.

    Hidden state 0 is the output of the embeddings, hidden state k that of layer k.
    """
    selected = vision.vision_select_layer
    return selected if selected >= 0 else vision.num_layers + 1 + selected
