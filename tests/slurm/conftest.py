"""The fixtures of this folder."""

from tests.rank_scripts import script
from tests.slurm.clusters import cluster, cluster_folder, world

__all__ = [
    "cluster",
    "cluster_folder",
    "script",
    "world",
]
