"""The original LLaVA's layout, with a vision tower of its own in the checkpoint or with that of another directory."""

import json
import shutil

import pytest
import torch
from huggingface_hub import try_to_load_from_cache
from model_cases import VOCABULARY, batch, changed, findings_of_source, hf_llava, llava_recipe, load_source, pretrained
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

from neva_model.checkpoints.huggingface.recipe import recipe_from_huggingface
from neva_recipes.config import CheckpointError, PrecisionConfig
from neva_recipes.families import image_length

NAMES = (
    ("language_model.", ""),
    ("multi_modal_projector.linear_1", "model.mm_projector.0"),
    ("multi_modal_projector.linear_2", "model.mm_projector.2"),
    ("vision_tower.", "model.vision_tower.vision_tower.vision_model."),
)
SIZE = {"model.language.vocab_size": VOCABULARY + 1}
TOWER = "model.vision_tower.vision_tower.vision_model."


@pytest.fixture(params=["clip", "siglip"])
def world(request, tmp_path):
    """A LLaVA of transformers, the same in the original layout, and the tower that it says it was trained from."""
    family = {"model.vision.vision_model_type": "siglip", "model.vision.hidden_act": "gelu_pytorch_tanh"}
    family |= {"model.vision.vision_select_feature": "skip_first"}
    recipe = llava_recipe(family if request.param == "siglip" else {})
    model = hf_llava(recipe)
    model.config.vision_feature_select_strategy = "default"
    model.save_pretrained(tmp_path / "hf")
    fields = json.loads((tmp_path / "hf/config.json").read_text())
    tensors = load_file(tmp_path / "hf/model.safetensors")
    original = tmp_path / "original"
    original.mkdir()
    renamed = {}
    for name, tensor in tensors.items():
        old, new = next(pair for pair in NAMES if name.startswith(pair[0]))
        renamed[new + name.removeprefix(old)] = tensor
    save_file(renamed, original / "model.safetensors")
    base = tmp_path / "the tower"
    base.mkdir()
    (base / "config.json").write_text(json.dumps(fields["vision_config"]))
    others = {name.removeprefix(TOWER): torch.ones_like(t) for name, t in renamed.items() if name.startswith(TOWER)}
    save_file(others, base / "model.safetensors")
    text = fields["text_config"] | {"model_type": "llava", "architectures": ["LlavaLlamaForCausalLM"]}
    text |= {"mm_vision_tower": str(base), "mm_vision_select_layer": -2, "mm_vision_select_feature": "patch"}
    text |= {"mm_projector_type": "mlp2x_gelu", "mm_hidden_size": 16, "image_aspect_ratio": "pad"}
    (original / "config.json").write_text(json.dumps(text))
    return tmp_path, changed(recipe, SIZE)


def configure(world, **fields):
    path = world[0] / "original/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@torch.no_grad()
def assert_same_logits(model, directory):
    oracle = LlavaForConditionalGeneration.from_pretrained(directory, attn_implementation="eager").eval()
    tokens = image_length(model.model_config.vision)
    case = batch([1, 2], 24, tokens_per_image=tokens)
    ids = case["tokens"]
    expected = oracle(input_ids=ids.where(ids != -200, VOCABULARY), pixel_values=case["images"]).logits
    ours = model(ids, case["position_ids"], case["images"])[..., : VOCABULARY + 1]
    assert expected.abs().max() > 0.5
    assert (ours - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("source", ["a folder", "openai/clip-vit-large-patch14-336"])
def test_every_part_of_a_checkpoint_with_its_own_tower_is_read(source, world):
    folder, recipe = world
    if source != "a folder":
        configure(world, mm_vision_tower=source)
    recipe = pretrained(recipe, folder / "original")
    assert findings_of_source(recipe) == []
    assert_same_logits(load_source(recipe), folder / "hf")


def test_a_tower_of_other_sizes_is_told_with_what_to_set(world):
    folder, recipe = world
    right = {"hidden_size": 16, "ffn_hidden_size": 24, "num_layers": 3, "image_size": 28, "num_attention_heads": 2}
    wrong = {"hidden_size": 32, "ffn_hidden_size": 48, "num_layers": 4, "image_size": 42, "num_attention_heads": 4}
    for known, source in ((True, None), (False, "owner/name")):
        if source is not None:
            configure(world, mm_vision_tower=source)
        changes = {f"model.vision.{field}": value for field, value in wrong.items()}
        recipe_here = pretrained(changed(recipe, changes), folder / "original")
        (finding,) = [one for one in findings_of_source(recipe_here) if "model.vision.from_pretrained" in one.fields]
        told = {field.rpartition(".")[2] for field in finding.fields} - {"from_pretrained"}
        # How many heads there are only the configuration of the tower says.
        assert told == set(right) - (set() if known else {"num_attention_heads"})
        assert all(finding.remedies[0][f"model.vision.{field}"] == right[field] for field in told)
        with pytest.raises(CheckpointError, match=r"num_hidden_layers is 3.*model\.vision\.num_layers=4"):
            load_source(changed(recipe_here, {"model.projector.from_pretrained": None}))


def test_such_a_checkpoint_can_be_opened_as_it_is(world):
    folder, _ = world
    recipe = recipe_from_huggingface(folder / "original")
    assert recipe.data.image_aspect_ratio == "pad" and not recipe.model.use_im_start_end
    assert_same_logits(load_source(changed(recipe, {"precision": PrecisionConfig(precision="fp32")})), folder / "hf")
    configure(world, mm_vision_tower="owner/name")
    with pytest.raises(CheckpointError, match="mm_vision_tower=owner/name, which is not a directory here") as caught:
        recipe_from_huggingface(folder / "original")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_without_a_tower_is_opened_with_the_one_it_names(world):
    folder, _ = world
    path = folder / "original/model.safetensors"
    save_file({name: tensor for name, tensor in load_file(path).items() if not name.startswith(TOWER)}, path)
    base = folder / "the tower/model.safetensors"
    tower = load_file(folder / "hf/model.safetensors")
    prefix = "vision_tower."
    save_file({name.removeprefix(prefix): t for name, t in tower.items() if name.startswith(prefix)}, base)
    recipe = recipe_from_huggingface(folder / "original")
    assert recipe.model.vision.from_pretrained == str(folder / "the tower")
    assert_same_logits(load_source(changed(recipe, {"precision": PrecisionConfig(precision="fp32")})), folder / "hf")


def test_a_tower_that_has_been_fetched_from_the_hub(world, tmp_path, monkeypatch):
    """In the layout of Hugging Face's cache: its config.json is enough for a tower inside of the checkpoint."""
    folder, _ = world
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    fetched = tmp_path / "hub/models--owner--tower"
    shutil.copytree(folder / "the tower", fetched / "snapshots/abc", ignore=shutil.ignore_patterns("*.safetensors"))
    (fetched / "refs").mkdir()
    (fetched / "refs/main").write_text("abc")
    configure(world, mm_vision_tower="owner/tower")
    assert try_to_load_from_cache("owner/tower", "config.json", cache_dir=tmp_path / "hub") is not None
    here = {"precision": PrecisionConfig(precision="fp32")}
    assert_same_logits(load_source(changed(recipe_from_huggingface(folder / "original"), here)), folder / "hf")
    path = folder / "original/model.safetensors"
    save_file({name: tensor for name, tensor in load_file(path).items() if not name.startswith(TOWER)}, path)
    with pytest.raises(CheckpointError, match="fetch it with hf download"):
        recipe_from_huggingface(folder / "original")
    prefix = "vision_tower."
    tower = load_file(folder / "hf/model.safetensors")
    weights = {name.removeprefix(prefix): tensor for name, tensor in tower.items() if name.startswith(prefix)}
    save_file(weights, fetched / "snapshots/abc/model.safetensors")
    assert_same_logits(load_source(changed(recipe_from_huggingface(folder / "original"), here)), folder / "hf")


def test_a_tower_that_is_none_is_one_line(world):
    folder, recipe = world
    recipe, path = pretrained(recipe, folder / "original"), folder / "original/model.safetensors"
    whole = load_file(path)
    for name, other in (
        ("embeddings.patch_embedding.weight", torch.zeros(16)),
        ("embeddings.position_embedding.weight", torch.zeros(7, 16)),
        ("encoder.layers.0.mlp.fc1.weight", None),
        ("encoder.layers.1.mlp.fc1.weight", torch.zeros(25, 16)),
    ):
        for source in (str(folder / "the tower"), "owner/name"):
            configure(world, mm_vision_tower=source)
            changes = {TOWER + name: other} if other is not None else {}
            save_file({n: t for n, t in whole.items() if n != TOWER + name} | changes, path)
            with pytest.raises(CheckpointError) as caught:
                load_source(recipe)
            assert name in str(caught.value) and "\n" not in str(caught.value)
            told = findings_of_source(recipe)
            assert [name in finding.message for finding in told] == [True], (source, told)
