"""libcst takes longer to import than a short command, and only waits for its use."""

import subprocess
import sys

import pytest

LOADED = """
import sys
from neva_recipes.cli.main import main
assert main(sys.argv[1:]) == 0
print(*sys.modules, file=sys.stderr)
"""

LAMBDA = """
import sys
from neva_recipes.cli.main import main
{use}

def pair(first, second=2):
    return first, second

import fiddle as fdl
from fiddle.codegen import codegen
from fiddle.experimental import auto_config

made = auto_config.auto_config(lambda: pair(pair(1)))
assert made.as_buildable() == fdl.Config(pair, fdl.Config(pair, 1)), made.as_buildable()
assert made() == ((1, 2), 2)
assert sys.modules["libcst"].CSTVisitor.__module__.startswith("libcst.")
"""


def run(code, *arguments, folder):
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=folder)


@pytest.mark.parametrize(
    ("words", "waits"),
    [
        (["--help"], {"libcst", "neva_recipes.plan", "executors"}),
        (["list"], {"libcst", "neva_recipes.plan", "executors"}),
        (["llava.finetune", "--dry-run"], {"libcst"}),
    ],
    ids=["help", "list", "dry run"],
)
def test_short_commands_do_without_what_takes_long(words, waits, folder):
    done = run(LOADED, *words, folder=folder)
    assert done.returncode == 0, done.stderr
    loaded = done.stderr.split()
    assert "fiddle" in loaded and not waits & set(loaded)


@pytest.mark.parametrize(
    "use",
    [
        "assert main(['list']) == 0; assert 'libcst' not in sys.modules",
        "import libcst; main(['list'])",
        "",
    ],
)
def test_fiddle_still_finds_the_source_of_a_lambda(use, folder):
    script = folder / "uses_a_lambda.py"  # the source of a lambda is read from its file
    script.write_text(LAMBDA.format(use=use))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
