"""A vision tower's config.json says to us what was published, and relatives of a family are refused with the reason."""

import json

import pytest

from neva_recipes.config import CheckpointError, VisionConfig
from neva_recipes.families.published import SIGLIP_TOWERS, hub_shape
from neva_recipes.families.towers.siglip import SIGLIP
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
    assert tower_fields_of(found.tower_family, found.vision) == hub_shape(name)


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
