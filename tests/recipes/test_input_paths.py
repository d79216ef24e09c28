"""What a process must be able to read for a recipe."""

import pytest

from neva_recipes import llava
from neva_recipes.config import (
    RecipeError,
    build,
    format_value,
    input_paths,
    listed_paths,
    recipe_from_yaml,
    recipe_to_yaml,
    set_field,
    tokenizer_name,
    with_absolute_inputs,
)


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


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (["data.data_path=a.json"], ["a.json"]),
        (["data.data_path=a.json,b.json"], ["a.json", "b.json"]),
        (["data.data_path=[b.json, a.json]"], ["b.json", "a.json"]),
        (["data.data_path=a,b.json"], ["a,b.json"]),
        (['data.data_path="a,b.json",a.json'], ["a,b.json", "a.json"]),
        (["data.data_path=a,b.json", "data.data_path+=b.json"], ["a,b.json", "b.json"]),
        (["data.data_path=a.json,b.json", "data.data_path+=a.json"], ["a.json", "b.json", "a.json"]),
    ],
)
def test_one_file_or_several(tmp_path, monkeypatch, texts, names):
    """What is written stands for these files, after it is saved and loaded elsewhere, shown and typed again too."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.json", "b.json", "a,b.json"):
        (tmp_path / name).write_text("[]")
    recipe = llava.finetune(size="tiny")
    for text in texts:
        key, _, value = text.partition("=")
        set_field(recipe, key, value)
    assert listed_paths(build(recipe).data.data_path) == names
    assert [path.name for path in input_paths(recipe) if path.is_file()] == list(dict.fromkeys(names))
    assert [path for path in input_paths(recipe) if path.is_dir()] == [tmp_path]  # the images are beside the files
    saved = recipe_to_yaml(with_absolute_inputs(recipe))
    set_field(recipe, "data.data_path", format_value(recipe.data.data_path))
    assert listed_paths(build(recipe).data.data_path) == names
    monkeypatch.chdir("/")
    loaded = build(recipe_from_yaml(saved)).data.data_path
    assert listed_paths(loaded) == [str(tmp_path / name) for name in names]


def test_random_is_no_path_even_where_a_folder_is_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "random").mkdir()
    recipe = llava.finetune(size="tiny")
    recipe.model.vision.from_pretrained = "./random"
    held = with_absolute_inputs(recipe).model
    sources = [part.from_pretrained for part in (held.language, held.projector, held.vision)]
    assert sources == ["random", "random", str(tmp_path / "random")]
    assert input_paths(recipe) == [tmp_path / "random"]
    built = build(recipe)
    assert (built.model.language.source, built.model.vision.source) == (None, "./random")
    with pytest.raises(RecipeError, match=r"data\.tokenizer is not set"):
        tokenizer_name(built)
