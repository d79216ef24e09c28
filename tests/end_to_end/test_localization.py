"""Every command of docs/localization.md in its order: a small model learns Greek, from its tokenizer on."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from executors import find_run
from tests.end_to_end.world import nemo_run

DOCS = Path(__file__).parents[2] / "docs"
COMMANDS = re.findall(r"^    \$ (.*)$", (DOCS / "localization.md").read_text(encoding="utf-8"), re.MULTILINE)
CATALOGUES = Path("/usr/share/locale/el/LC_MESSAGES")

SHORTER = {
    "gpt.pretrain": ["trainer.max_steps=30", "model.language.num_layers=2"],
    "gpt.localize": ["train.trainer.max_steps=20"],
}
"""What makes a training of the page one of seconds; the last of two values for a field counts."""


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.skipif(not CATALOGUES.is_dir(), reason=f"no Greek messages in {CATALOGUES}")
def test_the_page_works_from_begin_to_end(tmp_path: Path) -> None:
    shutil.copytree(DOCS / "examples" / "localize", tmp_path / "localize")
    (tmp_path / "prompts.txt").write_text("The file\nέως\n", encoding="utf-8")
    printed = {}
    for command in COMMANDS:
        if "RUN" in command:
            command = command.replace("RUN", find_run("localize", tmp_path / "runs").path.name)
        program, *words = shlex.split(command)
        if program == "python":
            subprocess.run([sys.executable, *words], cwd=tmp_path, check=True)
        else:
            printed[words[0]] = nemo_run(*words, *SHORTER.get(words[0], ()), cwd=tmp_path).stdout
    assert list(printed) == ["tokenizer", "gpt.pretrain", "export", "gpt.localize", "llava.finetune"]
    run = find_run("localize", tmp_path / "runs").path
    report = (run / "stages" / "report" / "report.txt").read_text(encoding="utf-8")
    figures = [
        [float(figure.replace(",", "")) for figure in re.findall(r"[\d,]+\.\d+", line)]
        for line in report.splitlines()[1:5]
    ]
    (new_before, new_after), (old_before, old_after), (worse, better), (known, still) = figures
    assert new_after < new_before / 2, "fewer tokens for the new language"
    assert old_after == old_before, "the old language costs what it did"
    assert better < worse / 2, "the new language is learnt"
    assert 0 < still < 2 * known, "the old one is not forgotten at once"
    # One vocabulary in all that was made: old ids first, and as many rows as the recipe said.
    exported = json.loads((run / "stages" / "export" / "exported" / "config.json").read_text())
    assert exported["vocab_size"] == 2048
    assert all(line in report for line in ("prompt: The file", "  before: ", "  after:  "))
    assert "language: loaded from" in printed["gpt.localize"]
