"""The example of docs/inference.md, run as it stands there in a Python process of its own."""

import subprocess
import sys
from pathlib import Path

_DOCUMENT = Path(__file__).parents[2] / "docs" / "inference.md"


def test_the_example_answers_and_prints_no_warning(llava_directory, pictures):
    code = _DOCUMENT.read_text().partition("## In Python\n\n```python\n")[2].partition("```")[0]
    code = code.replace("runs/llava.finetune-20250101-120000", str(llava_directory))
    code = code.replace("cat.jpg", str(pictures / "picture 0.png")).replace("max_new_tokens=100", "max_new_tokens=3")
    done = subprocess.run(
        [sys.executable, "-c", code + "\nprint('|', len(answers))"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("| 1\n")
    assert done.stderr == ""
