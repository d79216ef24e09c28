"""The folder of runs, where the shell has made nothing of it."""

import pytest

from neva_recipes.cli.main import main


@pytest.mark.parametrize(
    "words", [["status"], ["gc", "--yes"], ["logs", "a"], ["resume", "a"], ["llava.finetune", "size=tiny"]]
)
def test_an_empty_word_is_not_the_current_folder(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--runs-dir", ""]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: argument --runs-dir: '': expected a folder; ") and err.count("\n") == 1
    assert not [*tmp_path.iterdir()]
