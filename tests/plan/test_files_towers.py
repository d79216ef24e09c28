"""A vision tower's config.json says to us what was published, and relatives of a family are refused with the reason."""

import json

import pytest

from neva_recipes import llava
from neva_recipes.config import CheckpointError, VisionConfig, build, config
from neva_recipes.families.published import DINOV2_TOWERS, SIGLIP_TOWERS, hub_shape
from neva_recipes.families.towers.dinov2 import DINOV2
from neva_recipes.families.towers.siglip import SIGLIP
from neva_recipes.plan.data.files import check_files
from neva_recipes.plan.huggingface import tower_fields_of
from neva_recipes.plan.huggingface.configuration import read_configuration
from tests.plan.published_configurations import PUBLISHED

TEXT = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}


def read(folder, fields):
    (folder / "config.json").write_text(json.dumps(fields))
    return read_configuration(folder)


@pytest.mark.parametrize("name", sorted(PUBLISHED.keys() & SIGLIP_TOWERS.keys()))
def test_published_towers_have_the_sizes_that_their_names_stand_for(tmp_path, name):
    found = read(tmp_path, PUBLISHED[name])
    assert tower_fields_of(found.tower_family, found.vision) == {**hub_shape(name), "position_image_size": None}


def test_a_published_dinov2_has_the_positions_of_larger_images(tmp_path):
    found, known = read(tmp_path, PUBLISHED["facebook/dinov2-base"]), DINOV2_TOWERS["facebook/dinov2-base"]
    there = tower_fields_of(found.tower_family, found.vision)
    assert there == {**known, "image_size": 518}
    vision = VisionConfig(**known, image_size=224)
    parts = DINOV2.parameters(DINOV2.before, vision) + DINOV2.parameters(DINOV2.after, vision)
    assert parts + 12 * DINOV2.parameters(DINOV2.layer, vision) == 86_580_480  # num_parameters() of the published one
    assert DINOV2.image_length(vision) == 256


@pytest.mark.parametrize(
    ("sizes", "set_to"),
    [
        ({"image_size": 224, "position_image_size": 518}, None),
        ({"image_size": 518, "position_image_size": None}, None),
        ({"image_size": 224, "position_image_size": None}, {"model.vision.position_image_size": 518}),
    ],
)
def test_a_dinov2_on_the_hub_is_known_by_its_positions(sizes, set_to):
    recipe, name = llava.pretrain("7b"), "facebook/dinov2-large"
    recipe.model.vision = config(VisionConfig, **{**DINOV2_TOWERS[name], **sizes}, from_pretrained=name)
    found = [finding for finding in check_files(build(recipe)) if finding.code == "shape-mismatch"]
    assert [finding.remedies[0] for finding in found] == ([] if set_to is None else [set_to])


@pytest.mark.parametrize(("name", "millions"), [("base-patch16-224", 86), ("large-patch16-256", 303)])
def test_published_towers_have_as_many_weights_as_published(name, millions):
    vision = VisionConfig(**hub_shape(f"google/siglip2-{name}"))
    layers = vision.num_layers * SIGLIP.parameters(SIGLIP.layer, vision)
    assert layers + SIGLIP.parameters(SIGLIP.before, vision) == pytest.approx(millions * 1e6, rel=0.01)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"model_type": "siglip2", "architectures": ["Siglip2Model"]}, "model_type is siglip2: SigLIP 2 with NaFlex"),
        ({"model_type": "siglip2_vision_model"}, "model_type is siglip2_vision_model: SigLIP 2 with NaFlex, whose"),
        ({"model_type": "dinov2_with_registers"}, "model_type is dinov2_with_registers: DINOv2 with register tokens"),
        (
            {"model_type": "llava", "text_config": TEXT, "vision_config": {"model_type": "siglip2_vision_model"}},
            "its vision tower is a siglip2_vision_model: SigLIP 2 with NaFlex",
        ),
    ],
)
def test_a_relative_of_a_family_is_refused_with_the_reason(tmp_path, fields, told):
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path, fields)
    assert str(caught.value).startswith(f"{tmp_path}/config.json: {told}")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"use_swiglu_ffn": True}, "use_swiglu_ffn is True, only False is supported"),  # facebook/dinov2-giant
        ({"qkv_bias": False}, "qkv_bias is False, only True is supported"),
        ({"use_mask_token": False}, "use_mask_token is False, only True is supported"),
        ({"num_channels": 1}, "num_channels is 1, only 3 is supported"),
        ({"head_dim": 32}, "head_dim is 32, which is not understood"),
        (
            {"architectures": ["Dinov2ForImageClassification"]},
            "architectures is Dinov2ForImageClassification, expected",
        ),
    ],
)
@pytest.mark.parametrize("place", ["", "vision_config."])
def test_what_dinov2_does_not_do_is_named(tmp_path, place, change, told):
    fields = {**PUBLISHED["facebook/dinov2-base"], **change}
    if place:
        fields = {"model_type": "llava", "text_config": TEXT, "vision_config": fields}
    (problem,) = read(tmp_path, fields).problems_with("vision")
    assert problem.startswith(place + told)


def test_a_width_beyond_all_numbers_is_named(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"hidden_size \* mlp_ratio is 1500000000000, expected a whole number from"
    ):
        read(tmp_path, {**PUBLISHED["facebook/dinov2-base"], "hidden_size": 1500000, "mlp_ratio": 1000000})
