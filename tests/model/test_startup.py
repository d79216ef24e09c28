"""What a rank imports, and what it leaves out because only metrics of torchmetrics would use it."""

import subprocess
import sys

IMPORTS = """
import sys
from neva_model.startup import prepare_process

prepare_process()
import neva_model.training.train

print(*{name.partition(".")[0] for name in sys.modules})
import importlib.metadata, matplotlib.figure, scipy.stats

print(*map(importlib.metadata.version, ("matplotlib", "scipy")))
"""


def test_what_only_metrics_use_is_not_imported_and_can_be_imported_later():
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported, versions = done.stdout.splitlines()
    names = set(imported.split())
    assert {"fiddle", "lightning", "torchmetrics", "transformers"} <= names
    assert not {"libcst", "matplotlib", "scipy"} & names
    assert len(versions.split()) == 2
