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


@pytest.mark.parametrize("words", [["status"], ["show", "mine"], ["chat", "mine"], ["cancel", "mine-*"]])
def test_runs_of_a_folder_above_are_named(words, tmp_path, monkeypatch, capsys):
    """Whoever types a command in a subfolder learns where the runs are."""
    run = tmp_path / "runs" / "mine-20260101-120000"
    run.mkdir(parents=True)
    (run / "job.json").write_text("{}")
    below = tmp_path / "data" / "more"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    code = main(words)
    out, err = capsys.readouterr()
    assert "; there are some in ../../runs: --runs-dir ../../runs\n" in out + err
    assert code == (0 if words == ["status"] else 2)
    (run / "job.json").unlink()
    main(words)
    out, err = capsys.readouterr()
    assert "../runs" not in out + err
