"""The examples of docs/recipes.md do what it says."""

import re
from pathlib import Path

import fiddle as fdl

from neva_recipes.cli.main import main
from neva_recipes.config import Recipe, build

TEXT = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_every_recipe_in_the_examples_is_valid():
    names = []
    for example in EXAMPLES:
        names_here = {}
        exec(example.replace("run(small_images, LocalExecutor())", ""), names_here)
        recipes = {name: value for name, value in names_here.items() if isinstance(value, fdl.Buildable)}
        assert all(isinstance(build(recipe), Recipe) for recipe in recipes.values())
        names += recipes
    assert names == ["recipe", "small_images", "siglip", "mixed", "seeing"]


def test_a_recipe_file_as_described(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (example,) = (text for text in EXAMPLES if "my_recipes.py" in text)
    (tmp_path / "my_recipes.py").write_text(example)
    (tmp_path / "lab.py").write_text("from neva_recipes import gpt\n\ndef words():\n    return gpt.pretrain('tiny')\n")
    commands = re.findall(r"^    nemo-run (.*my_recipes\.py.*?)(?: {2}.*)?$", TEXT, re.MULTILINE)
    assert len(commands) == 4 and any("lab.py" in command for command in commands)
    for command in commands:
        assert main([*command.split(), *(["--dry-run"] if "lr=" in command else [])]) == 0
    out = capsys.readouterr().out
    assert "LLaVA, finetuned on chest X-rays." in out and "Peak learning rate." in out
    assert "  lr: 3e-05 " in out and "  micro_batch_size: 8 " in out


def test_error_messages_are_quoted_as_they_are(capsys):
    for key, message in (("lr=1", "lr: no such"), ("data.image_aspect_ratio=pda", "data.image_aspect_ratio='pda'")):
        assert main(["llava.finetune", key]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert f"    {said}" in TEXT
