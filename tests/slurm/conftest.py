"""The fixtures of this folder."""

import os

from tests.rank_scripts import script
from tests.slurm.clusters import cluster, cluster_folder, world

# submitit sends its log to the streams of the moment at which it is imported. Those of a test are closed when it ends,
# and a log that writes into them, or closes them, takes pytest's own output away. In the jobs it logs as always.
os.environ["SUBMITIT_LOG_LEVEL"] = "NOCONFIG"
import submitit

del os.environ["SUBMITIT_LOG_LEVEL"]

__all__ = [
    "cluster",
    "cluster_folder",
    "script",
    "submitit",
    "world",
]
