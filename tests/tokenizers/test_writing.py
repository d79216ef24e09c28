"""Whatever ends the writing of a tokenizer, its target is whole or not there."""

import os
import resource
import signal
import subprocess

import pytest
import sentencepiece
import tokenizers

from neva_recipes.tokenizers import add_tokens, merge
from tests.cli.command import NEMO_RUN
from tests.kill_points import Attempts
from tests.tokenizers.texts import byte_level_directory, llama_directory, made_lines


def base_of(kind, model, folder):
    return llama_directory(folder / "base", model) if kind == "directory" else model


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_killed_at_any_call(kind, english_model, tmp_path):
    base = base_of(kind, english_model, tmp_path)
    number, killed = 0, -signal.SIGKILL
    while killed:
        number += 1
        folder = tmp_path / f"killed-{number}"
        folder.mkdir()
        target = folder / "new"
        attempts = Attempts(folder, tmp_path / "log")

        def add(target=target):
            add_tokens(str(base), target)

        killed, _ = attempts.run(add, number)
        assert killed in (0, -signal.SIGKILL), (tmp_path / "log").read_text()
        model = target if kind == "file" else target / "tokenizer.model"
        if not target.exists():
            assert attempts.run(add)[0] == 0, (tmp_path / "log").read_text()
        written = sentencepiece.SentencePieceProcessor(model_file=str(model))
        assert written.id_to_piece(written.get_piece_size() - 1) == "<extra_id_7>"
        assert [path.name for path in folder.iterdir()] == ["new"]
    assert number > 3


def test_a_merge_that_is_killed_at_any_call(tmp_path):
    base = byte_level_directory(tmp_path / "base", made_lines("latin", 100), 300, ("<|end|>",))
    new = byte_level_directory(tmp_path / "new", made_lines("greek", 100), 300)
    number, killed = 0, -signal.SIGKILL
    while killed:
        number += 1
        folder = tmp_path / f"killed-{number}"
        folder.mkdir()
        attempts = Attempts(folder, tmp_path / "log")

        def join(target=folder / "merged"):
            merge(str(base), str(new), target)

        killed, _ = attempts.run(join, number)
        assert killed in (0, -signal.SIGKILL), (tmp_path / "log").read_text()
        if not (folder / "merged").exists():
            assert attempts.run(join)[0] == 0, (tmp_path / "log").read_text()
        assert tokenizers.Tokenizer.from_file(str(folder / "merged" / "tokenizer.json")).get_vocab_size() > 301
        assert [path.name for path in folder.iterdir()] == ["merged"]
    assert number > 3


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_full_disk_is_one_line(kind, english_model, tmp_path):
    base = base_of(kind, english_model, tmp_path)
    done = subprocess.run(
        [NEMO_RUN, "tokenizer", "add-tokens", base, tmp_path / "new"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {tmp_path}/new: cannot be written: File too large\n"
    assert not [path for path in tmp_path.iterdir() if "new" in path.name]
