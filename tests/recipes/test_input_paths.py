"""What a process must be able to read for a recipe."""

from neva_recipes import llava
from neva_recipes.config import input_paths, recipe_to_yaml


def test_named_files_and_what_they_lead_to(tmp_path, monkeypatch):
    """Names of files that are there, the store behind the links of a model, and a run with its tokenizer's."""
    monkeypatch.chdir(tmp_path)
    for folder in ("images", "store", "vision", "other", "runs/first/checkpoints/step-1"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("data.json", "store/weights", "tokens.model", "first.json"):
        (tmp_path / file).write_text("")
    (tmp_path / "vision" / "model.safetensors").symlink_to("../store/weights")
    first = llava.finetune(size="tiny")
    first.data.data_path = str(tmp_path / "first.json")
    first.data.tokenizer = str(tmp_path / "tokens.model")
    (tmp_path / "runs/first/recipe.yaml").write_text(recipe_to_yaml(first))

    recipe = llava.finetune(size="tiny")
    recipe.data.data_path = "data.json"
    recipe.data.validation_data_path = str(tmp_path / "none.json")
    recipe.data.image_folder = "images"
    recipe.data.tokenizer = "owner/name"
    recipe.model.vision.from_pretrained = "vision"
    recipe.model.language.from_pretrained = "runs/first/checkpoints/step-1"
    found = {str(path.relative_to(tmp_path)) for path in input_paths(recipe)}
    assert found == {
        "data.json",
        "images",
        "vision",
        "store",
        "runs/first",
        "runs/first/checkpoints/step-1",
        "tokens.model",
    }
