"""What Slurm says of a job that it does not take, in one line."""

import os

import pytest

from executors.nemo_run.place import require_place
from neva_recipes.config import RunError

# What sbatch prints where it finds no configuration, and where a job cannot be.
ABSENT = """
sbatch: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host
sbatch: error: fetch_config: DNS SRV lookup failed
sbatch: fatal: Could not establish a configuration source
"""
REFUSED = """
sbatch: error: invalid partition specified: gpus
sbatch: error: Batch job submission failed: Invalid partition name specified
"""


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        (ABSENT, "Could not establish a configuration source"),
        (REFUSED, "invalid partition specified: gpus"),
        ("", "sbatch ended with exit code 1"),
    ],
)
def test_the_line_that_says_why(tmp_path, monkeypatch, printed, told):
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(f"#!/bin/sh\ncat >&2 <<'END'{printed}\nEND\nexit 1\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(RunError) as error:
        require_place("slurm", None, lambda: "#!/bin/bash\ntrue\n")
    assert str(error.value) == f"executor.options: Slurm refuses the job: {told}"
