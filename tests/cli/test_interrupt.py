"""Ctrl-C at the command."""

import subprocess
import sys

WHILE_LOADING = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "neva_recipes.cli.dispatch":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
from neva_recipes.cli.main import main
sys.exit(main(["list"]))
"""


def test_while_the_command_is_loaded_it_ends_without_a_word():
    done = subprocess.run([sys.executable, "-c", WHILE_LOADING], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
