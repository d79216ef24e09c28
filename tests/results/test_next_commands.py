"""What a command names at the end of a run fits the recipe that it ran."""

import executors
from neva_recipes.cli.main import main
from neva_recipes.cli.report.finish import next_lines


def test_no_built_in_second_stage_follows_a_recipe_of_ones_own(folder, make_run, capsys):
    (folder / "own.py").write_text(
        "from neva_recipes import llava\n"
        "from neva_recipes.config import Draft, Recipe\n"
        "def first() -> Draft[Recipe]:\n"
        "    return llava.pretrain('tiny')\n"
    )
    path = make_run("a")
    for words, follows in ((["llava.pretrain", "size=tiny"], True), (["first", "--recipes", "own.py"], False)):
        assert main([*words, "--dry-run", "--format", "yaml"]) == 0
        (path / "recipe.yaml").write_text(capsys.readouterr().out)
        lines = next_lines(executors.Run(path))
        assert "  nemo-run export a DIR" in lines
        assert any("llava.finetune" in line for line in lines) == follows
