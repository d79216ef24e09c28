"""Texts in TOML that lack their quotes."""

from pathlib import Path

import pytest

from executors import find_executor
from neva_recipes.config import UserError


@pytest.mark.parametrize(
    ("line", "start", "end"),
    [
        ("time = 04:00:00", "[a] time=04:00:00: expected a time as Slurm", ': put it in quotes, time = "04:00:00"'),
        ("env = { N = 4 }", "[a] env.N=4: expected a string an envir", ': put it in quotes, N = "4"'),
        ('env = { A = "1", N = 4 }', "[a] env.N=4: expected a string an envir", ': put it in quotes, N = "4"'),
        ("sbatch.licenses = 3", "[a] sbatch.licenses=3: expected a string", ': put it in quotes, licenses = "3"'),
        ("env = { A = true, N = 4 }", "[a] env.A=True: expected a string an env", "can hold"),
        ("partition = 1.5", "[a] partition=1.5: expected a word without", "or none"),
    ],
)
def test_a_text_without_quotes(tmp_path, monkeypatch, line, start, end):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    Path("executors.toml").write_text(f'[a]\nkind = "slurm"\n{line}\n')
    with pytest.raises(UserError) as caught:
        find_executor("a")
    message = str(caught.value)
    assert message.startswith(f"executors.toml, line 3: {start}") and message.endswith(end), message
