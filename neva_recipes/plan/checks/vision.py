"""Rules on the vision tower and on the tokens an image takes."""

from collections.abc import Iterator

from neva_recipes.config import Recipe
from neva_recipes.families import image_length, layers_run, vision_family
from neva_recipes.plan.checks._rules import Found, Rule, around, found, multiples
from neva_recipes.plan.findings import error, warning

__all__ = ["vision_rules"]

_VISION = "model.vision"
_IMAGE = f"{_VISION}.image_size"
_PATCH = f"{_VISION}.patch_size"
_LAYER = f"{_VISION}.vision_select_layer"
_FEATURE = f"{_VISION}.vision_select_feature"
_TYPE = f"{_VISION}.vision_model_type"
_TOKENS = f"{_VISION}.image_token_len"
_POSITIONS = f"{_VISION}.position_image_size"


def vision_heads(recipe: Recipe) -> Iterator[Found]:
    """The hidden size of the tower divides over its heads."""
    vision = recipe.model.vision
    if vision is not None and vision.hidden_size % vision.num_attention_heads:
        hidden, heads = f"{_VISION}.hidden_size", f"{_VISION}.num_attention_heads"
        message = f"{vision.hidden_size} is not a multiple of {vision.num_attention_heads} heads"
        yield found(
            error("vision-heads", message, recipe, hidden, heads),
            *around(heads, vision.num_attention_heads, highest=vision.hidden_size),
            *around(hidden, vision.hidden_size),
        )


def vision_feed_forward(recipe: Recipe) -> Iterator[Found]:
    """The feed-forward layers are a whole number of times wider, where the family's config.json says it so."""
    vision = recipe.model.vision
    if vision is None or (family := vision_family(vision)).mlp_ratio is None:
        return
    hidden, ffn = f"{_VISION}.hidden_size", f"{_VISION}.ffn_hidden_size"
    if vision.ffn_hidden_size % vision.hidden_size:
        message = f"{family.title}'s is a multiple of the width ({family.mlp_ratio}), not {vision.ffn_hidden_size}"
        yield found(
            error("vision-feed-forward", message, recipe, _TYPE, ffn, hidden),
            *multiples(ffn, vision.ffn_hidden_size, vision.hidden_size),
        )


def position_embeddings(recipe: Recipe) -> Iterator[Found]:
    """The position embeddings are those of the images, or the family interpolates them."""
    vision = recipe.model.vision
    if vision is None or vision.position_side == vision.image_size:
        return
    family = vision_family(vision)
    if not family.interpolates:
        message = f"{family.title} takes images of the size that its position embeddings are for"
        yield found(error("position-image-size", message, recipe, _TYPE, _POSITIONS, _IMAGE), [{_POSITIONS: None}])
    elif vision.patch_size > vision.position_side:
        message = f"a patch of {vision.patch_size} pixels does not fit into an image of {vision.position_side}"
        yield found(
            error("position-image-size", message, recipe, _POSITIONS, f"{_VISION}.patch_size"), [{_POSITIONS: None}]
        )


def image_patches(recipe: Recipe) -> Iterator[Found]:
    """An image consists of whole patches."""
    vision = recipe.model.vision
    if vision is None:
        return
    image, patch = vision.image_size, vision.patch_size
    if patch > image:
        yield found(
            error(
                "image-patches",
                f"a patch of {patch} pixels does not fit into an image of {image}",
                recipe,
                _IMAGE,
                _PATCH,
            ),
            [{_PATCH: image}],
            [{_IMAGE: patch}],
        )
    elif image_length(vision) < 1:
        message = "with skip_first, an image of one patch leaves no token"
        yield found(error("image-patches", message, recipe, _IMAGE, _PATCH, _FEATURE), [{_FEATURE: "patch"}])
    elif vision_family(vision).needs_whole_patches and image % patch:
        yield found(
            error("image-patches", f"{image} pixels are not a multiple of patches of {patch}", recipe, _IMAGE, _PATCH),
            *multiples(_IMAGE, image, patch),
            *around(_PATCH, patch, highest=image),
        )


def selected_layer(recipe: Recipe) -> Iterator[Found]:
    """The selected hidden state exists, and is the output of a layer."""
    vision = recipe.model.vision
    if vision is None:
        return
    layer, layers = vision.vision_select_layer, vision.num_layers
    if not -layers - 1 <= layer <= layers:
        yield found(
            error(
                "vision-select-layer",
                f"a tower of {layers} layers has no hidden state {layer}: expected {-layers - 1} to {layers}",
                recipe,
                _LAYER,
                f"{_VISION}.num_layers",
            ),
            [{_LAYER: -layers if layer < 0 else layers}],
            [{_LAYER: -2}, {_LAYER: -1}],
        )
    elif layers_run(vision) == 0:
        message = "the features are the embeddings of the patches: no layer of the tower is used"
        yield found(warning("vision-no-layer", message, recipe, _LAYER), [{_LAYER: -2}, {_LAYER: -1}])


def class_token(recipe: Recipe) -> Iterator[Found]:
    """The selected class token exists."""
    vision = recipe.model.vision
    if vision is None or vision.vision_select_feature != "cls_patch":
        return
    family = vision_family(vision)
    if not family.has_class_token:
        message = f"{family.title} has no class token, so cls_patch is the same as patch"
        yield found(warning("vision-class-token", message, recipe, _TYPE, _FEATURE), [{_FEATURE: "patch"}])


def activation(recipe: Recipe) -> Iterator[Found]:
    """The activation is one that the family's towers are trained with."""
    vision = recipe.model.vision
    if vision is None:
        return
    family = vision_family(vision)
    if vision.hidden_act not in family.activations:
        path, usual = f"{_VISION}.hidden_act", family.activations[0]
        message = f"{family.title}'s towers are trained with {usual}, not with {vision.hidden_act}"
        yield found(warning("vision-activation", message, recipe, _TYPE, path), [{path: usual}])


def image_token_len(recipe: Recipe) -> Iterator[Found]:
    """The number of image tokens agrees with the sizes."""
    vision = recipe.model.vision
    if vision is None or vision.image_token_len is None:
        return
    if (tokens := image_length(vision)) != vision.image_token_len:
        yield found(
            error(
                "image-token-len",
                f"an image makes {tokens} tokens, not {vision.image_token_len}",
                recipe,
                _TOKENS,
                _IMAGE,
                _PATCH,
                _FEATURE,
            ),
            [{_TOKENS: tokens}, {_TOKENS: None}],
            [{_TOKENS: None}],
        )


vision_rules: tuple[Rule, ...] = (
    vision_heads,
    vision_feed_forward,
    position_embeddings,
    image_patches,
    selected_layer,
    class_token,
    activation,
    image_token_len,
)
