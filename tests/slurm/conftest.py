"""The fixtures of this folder.

submitit is imported before any test: it sets up logging on the streams of that moment, and those of a test are closed.
"""

import submitit

from tests.rank_scripts import script
from tests.slurm.clusters import cluster, cluster_folder, world

__all__ = [
    "cluster",
    "cluster_folder",
    "script",
    "submitit",
    "world",
]
