"""The vision tower and the projector: `model.mm_cfg` without its language model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neva_recipes.config import PlainTable
from neva_recipes.families.published import CLIP_LARGE, CLIP_VIT_LARGE, SIGLIP_TOWERS
from neva_recipes.nemo._language_keys import weights
from neva_recipes.nemo.rules import (
    Configuration,
    Decision,
    Outcome,
    Rule,
    Unusable,
    boolean,
    cannot,
    carried,
    carries,
    decides,
    harmless,
    holds,
    integer,
    left,
    same,
    text,
)

__all__ = ["VISION_RULES"]

_ENCODER = "model.mm_cfg.vision_encoder"

_TOWERS: dict[str, PlainTable] = {
    **{
        tower: {"vision_model_type": "clip", "patch_size": 14, **CLIP_LARGE, "image_size": side}
        for side, tower in CLIP_VIT_LARGE.items()
    },
    **SIGLIP_TOWERS,
}
"""Shapes of published towers."""

_GUESSED = (*CLIP_VIT_LARGE.values(), "google/siglip-so400m-patch14-384")
"""The towers that a configuration means if it only gives their sizes: others have the same sizes."""


@dataclass(frozen=True)
class _Tower:
    """The tower of a configuration.

    Attributes:
        shape: Fields of `model.vision`.
        published: The published tower that it is, or is assumed to be; empty if there is none.
        by_name: Whether the configuration names the tower, instead of only giving its sizes.
    """

    shape: Mapping[str, Any]
    published: str
    by_name: bool


_SIZES = {
    "patch_dim": "patch_size",
    "crop_size": "image_size",
    "hidden_size": "hidden_size",
    "ffn_hidden_size": "ffn_hidden_size",
    "num_layers": "num_layers",
    "num_attention_heads": "num_attention_heads",
}
"""Keys of the encoder for sizes of the tower, and their fields."""


def _tower(nemo: Configuration) -> _Tower:
    name = nemo.get(f"{_ENCODER}.from_pretrained")
    last = name.rstrip("/").rpartition("/")[2] if isinstance(name, str) else ""
    for published, shape in _TOWERS.items():
        if last == published.rpartition("/")[2]:
            return _Tower(shape, published, by_name=True)
    given = _given_sizes(nemo)
    for published in _GUESSED:
        shape = _TOWERS[published]
        if ({"hidden_size": 1024, "patch_size": 14} | given).items() <= shape.items():
            return _Tower(shape, published, by_name=False)
    width = given.get("hidden_size", 1024)
    shape = {
        "vision_model_type": "siglip" if "siglip" in last.lower() else "clip",
        "num_layers": 24,
        "hidden_size": width,
        "ffn_hidden_size": 4 * width,
        "num_attention_heads": max(1, width // 64),
        "patch_size": 14,
        "image_size": 224,
    }
    return _Tower({**shape, **given}, "", by_name=False)


def _given_sizes(nemo: Configuration) -> dict[str, int]:
    """Return the sizes that the configuration gives, by field, without unusable ones."""
    sizes = {}
    for key, name in _SIZES.items():
        try:
            sizes[name] = _side(nemo.get(f"{_ENCODER}.{key}"))
        except Unusable:
            continue
    return {name: size for name, size in sizes.items() if size > 0}


def _side(value: object) -> int:
    """Return a size, or the side of a square given as a list of two."""
    if not isinstance(value, list):
        return integer(value)
    if len(value) != 2 or value[0] != value[1]:
        raise Unusable("images are square")
    return integer(value[0])


def _path(name: str) -> str:
    return f"model.vision.{name}"


def _from_pretrained(value: object, nemo: Configuration) -> Outcome:
    tower = _tower(nemo)
    shape = {_path(name): size for name, size in tower.shape.items()}
    if tower.by_name:
        return carried({_path("from_pretrained"): text(value), **shape})
    given = _given_sizes(nemo)
    source = tower.published or "CLIP"
    assumed = {_path(name): (size, f"as in {source}") for name, size in tower.shape.items() if name not in given}
    if value:
        if nemo.get(f"{_ENCODER}.from_hf") is not True:
            return Outcome("cannot", "a tower in a .nemo file is not read: name its original on the hub", {}, assumed)
        outcome = weights(value, _path("from_pretrained"))
        return Outcome(outcome.kind, outcome.why, outcome.fields, assumed)
    if tower.published:
        assumed[_path("from_pretrained")] = (tower.published, "the configuration names no tower; this has its sizes")
    return same("none", assumed)


def _size(name: str) -> Decision:
    """Return the decision on a size of the tower, which a published tower already determines."""

    def decide(value: object, nemo: Configuration) -> Outcome:
        tower = _tower(nemo)
        if value is None:
            return same("not set")
        if tower.by_name and _side(value) != tower.shape[name]:
            return left(f"{tower.published} has {tower.shape[name]}")
        return carried({_path(name): _side(value)})

    return decide


def _select_feature(nemo: Configuration) -> str:
    """Return which tokens of the tower are used: for `patch`, NeMo cuts off `class_token_length` tokens, if any."""
    if nemo.get(f"{_ENCODER}.vision_select_feature", "patch") == "cls_patch":
        return "cls_patch"
    is_whole = nemo.get(f"{_ENCODER}.class_token_length", 1) == 0
    return "cls_patch" if is_whole and _tower(nemo).shape["vision_model_type"] == "clip" else "patch"


def _feature(value: object, nemo: Configuration) -> Outcome:
    if value not in ("patch", "cls_patch", None):
        return cannot("tokens of the tower are used with or without the class token")
    if _tower(nemo).shape["vision_model_type"] == "siglip":
        return carried({_path("vision_select_feature"): "patch"}, "SigLIP has no class token")
    return carried({_path("vision_select_feature"): _select_feature(nemo)})


def _class_token(value: object, nemo: Configuration) -> Outcome:
    length = 1 if value is None else integer(value)
    if nemo.get(f"{_ENCODER}.vision_select_feature", "patch") == "cls_patch":
        return same("not used with cls_patch")
    if _tower(nemo).shape["vision_model_type"] == "siglip":
        return (
            same("SigLIP has no class token") if length == 0 else cannot(f"SigLIP would lose {length} of its patches")
        )
    if length in (0, 1):
        return carried({_path("vision_select_feature"): _select_feature(nemo)})
    return cannot("the tower has one class token")


def _freeze(value: object, _: Configuration) -> Outcome:
    if boolean(value):
        return carried({_path("freeze"): True})
    return left("NeMo's tower gets no gradients whatever this says: set model.vision.freeze=false to train it")


def _projector(value: object, _: Configuration) -> Outcome:
    if not re.fullmatch(r"linear|mlp[1-9]x_gelu", text(value)):
        return cannot("projectors are linear or mlpNx_gelu; mlp2x_gelu is in the recipe")
    return carried({"model.projector.mm_projector_type": value})


def _adapter(value: object, _: Configuration) -> Outcome:
    return weights(value, "model.projector.from_pretrained")


def _image_tokens(value: object, nemo: Configuration) -> Outcome:
    if value is None:
        return same("follows from the sizes")
    shape = _tower(nemo).shape
    has_class_token = shape["vision_model_type"] == "clip" and _select_feature(nemo) == "cls_patch"
    tokens = (shape["image_size"] // shape["patch_size"]) ** 2 + has_class_token
    if integer(value) != tokens:
        return left(f"an image takes {tokens} tokens by the sizes of the tower, in NeMo too")
    return carried({_path("image_token_len"): tokens})


VISION_RULES: tuple[Rule, ...] = (
    decides(
        f"{_ENCODER}.from_pretrained",
        "`model.vision.from_pretrained`",
        "and all sizes of the published towers; others are assumed",
        _from_pretrained,
        absent=None,
    ),
    holds(f"{_ENCODER}.from_hf", True, otherwise="towers come from the Hugging Face hub", absent=False),
    harmless(f"{_ENCODER}.model_type", "follows from from_pretrained"),
    *(
        decides(f"{_ENCODER}.{key}", f"`model.vision.{name}`", "where from_pretrained does not decide", _size(name))
        for key, name in _SIZES.items()
    ),
    carries(f"{_ENCODER}.vision_select_layer", "model.vision.vision_select_layer", integer),
    decides(f"{_ENCODER}.vision_select_feature", "`model.vision.vision_select_feature`", "", _feature),
    decides(
        f"{_ENCODER}.class_token_length",
        "`model.vision.vision_select_feature`",
        "1 is patch; 0 is cls_patch with CLIP",
        _class_token,
        absent=1,
    ),
    decides(
        f"{_ENCODER}.freeze",
        "`model.vision.freeze`",
        "True; NeMo's tower gets no gradients with False either",
        _freeze,
    ),
    decides(
        "model.mm_cfg.mm_mlp_adapter_type",
        "`model.projector.mm_projector_type`",
        "linear and mlpNx_gelu",
        _projector,
        absent="linear",
    ),
    decides(
        "model.mm_cfg.pretrain_mm_mlp_adapter",
        "`model.projector.from_pretrained`",
        "hub names and Hugging Face directories; .nemo files are not read",
        _adapter,
    ),
    carries("model.mm_cfg.use_im_start_end", "model.use_im_start_end", boolean),
    decides(
        "model.data.image_token_len",
        "`model.vision.image_token_len`",
        "where it agrees with the sizes of the tower",
        _image_tokens,
    ),
    holds("model.mm_cfg.use_lita", False, otherwise="there is no video"),
    harmless("model.mm_cfg.lita.*", "with use_lita"),
)
"""Rules for the keys on the vision tower and the projector."""
