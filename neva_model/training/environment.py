"""The place of this process among the others: Lightning's view of the launcher's environment variables."""

import os

from lightning.fabric.plugins.environments import ClusterEnvironment

__all__ = ["RankEnvironment"]


class RankEnvironment(ClusterEnvironment):
    """Environment of processes that an executor has started, one per rank, with RANK and similar variables set.

    It is named explicitly so that Lightning never picks its Slurm environment, which would requeue jobs on its own.
    """

    @property
    def creates_processes_externally(self) -> bool:
        """Whether Lightning must not start processes itself."""
        return True

    @property
    def main_address(self) -> str:
        """Host of rank 0."""
        return os.environ["MASTER_ADDR"]

    @property
    def main_port(self) -> int:
        """Port of rank 0."""
        return int(os.environ["MASTER_PORT"])

    @staticmethod
    def detect() -> bool:
        """Return whether the variables are set."""
        return "RANK" in os.environ

    def world_size(self) -> int:
        """Number of processes."""
        return int(os.environ["WORLD_SIZE"])

    def set_world_size(self, size: int) -> None:
        """Do nothing: the executor decides."""

    def global_rank(self) -> int:
        """Number of this process among all."""
        return int(os.environ["RANK"])

    def set_global_rank(self, rank: int) -> None:
        """Do nothing: the executor decides."""

    def local_rank(self) -> int:
        """Number of this process on its machine."""
        return int(os.environ["LOCAL_RANK"])

    def node_rank(self) -> int:
        """Number of this machine."""
        return int(os.environ["NODE_RANK"])
