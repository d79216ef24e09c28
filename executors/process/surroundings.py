"""Removes the variables of launchers from the environment of ranks.

Standard library only. A shell inside of a job, a notebook under torchrun or a container of a cluster has variables that
would make libraries in the ranks believe that this launcher has started them. Every executor therefore takes the
environment of a rank from `rank_environment`.
"""

import functools
import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

__all__ = ["NEMO_RUN_LAUNCHER", "RANK_VARIABLES", "SLURM", "launcher_of", "rank_environment"]

RANK_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "NODE_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)
"""Variables that every executor sets for every process."""

SLURM = "Slurm"
NEMO_RUN_LAUNCHER = "torchrun"
"""The launcher that NeMo-Run uses."""

_PLACE_VARIABLES = ("SLURM_CLUSTERS", "SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")
"""Variables that locate Slurm and authenticate its user, and do not describe a job."""


class _Launcher(NamedTuple):
    """A launcher and its variables.

    Attributes:
        name: Its usual name.
        pattern: A regular expression for the names of its variables.
        source: The code or manual that sets or reads them.
    """

    name: str
    pattern: str
    source: str


_LAUNCHERS = (
    _Launcher(
        NEMO_RUN_LAUNCHER,
        r"TORCHELASTIC_.*|PET_.*|GROUP_(RANK|WORLD_SIZE)|ROLE_(NAME|RANK|WORLD_SIZE)",
        "torch/distributed/elastic/agent/server/local_elastic_agent.py; torch/distributed/argparse_util.py (PET_)",
    ),
    _Launcher("TorchX", r"TORCHX_.*", "torchx/runner, torchx/schedulers"),
    _Launcher(SLURM, r"(SLURM|SLURMD|SRUN)_.*", "man srun and sbatch: input and output environment variables"),
    _Launcher("submitit", r"SUBMITIT_.*", "submitit/core/job_environment.py; submitit/local/local.py"),
    _Launcher("Open MPI", r"OMPI_(?!MCA_).*|PRTE_(?!MCA_).*", "docs.open-mpi.org: environment variables set by mpirun"),
    _Launcher("PMI", r"PMI2?_.*|PMIX_(?!MCA_).*", "PMIx standard, chapter 6; MPICH, src/pmi"),
    _Launcher("MPICH", r"MPI_LOCALN?RANK(ID|S)|HYD[IR]A?_.*|MPIR_.*", "MPICH, src/pm/hydra"),
    _Launcher("Intel MPI", r"I_MPI_(HYDRA|INFO|JOB|MPIRUN|PERHOST|PMI).*", "Intel MPI reference: Hydra's variables"),
    _Launcher("MVAPICH2", r"MV2_COMM_WORLD_.*|MPISPAWN_.*", "MVAPICH2 user guide; lightning's and DeepSpeed's look-up"),
    _Launcher("PALS and ALPS", r"PALS_.*|ALPS_APP_.*", "HPE Cray: man mpiexec, aprun"),
    _Launcher("Flux", r"FLUX_(JOB|KVS|TASK)_.*", "man flux-environment"),
    _Launcher("LSF", r"JSM_.*|LSB_.*", "lightning/fabric/plugins/environments/lsf.py"),
    _Launcher("Lightning", r"PL_.*|LT_.*", "lightning/pytorch/utilities/argparse.py; lightning/fabric/cli.py"),
    _Launcher("DeepSpeed", r"DEEPSPEED_.*|CROSS_(RANK|SIZE)|LOCAL_SIZE", "deepspeed/launcher/launch.py"),
    _Launcher(
        "accelerate",
        r"ACCELERATE_.*|FSDP_.*|MEGATRON_LM_.*|PARALLELISM_CONFIG_.*|FORK_LAUNCHED",
        "accelerate/utils/launch.py; transformers/integrations/fsdp.py reads them without it",
    ),
    _Launcher("SageMaker", r"SM_(FRAMEWORK_PARAMS|HP_MP_PARAMETERS)", "transformers/utils/import_utils.py"),
    _Launcher("Horovod", r"HOROVOD_.*", "horovod/runner/gloo_run.py"),
    _Launcher("NCCL", r"NCCL_COMM_ID", "NCCL user guide: one fixed address for every communicator"),
)
"""The launchers and the variables that they set for their processes, without variables that users set for tuning."""


@functools.cache
def _patterns(without: str | None) -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((entry.name, re.compile(entry.pattern)) for entry in _LAUNCHERS if entry.name != without)


def launcher_of(name: str, *, without: str | None = None) -> str | None:
    """Return the launcher that sets a variable of this name for its processes; `None` for other variables.

    Args:
        name: Name of the variable.
        without: Name of a launcher to leave out.
    """
    if name in _PLACE_VARIABLES:
        return None
    return next((launcher for launcher, pattern in _patterns(without) if pattern.fullmatch(name)), None)


def rank_environment(
    inherited: Mapping[str, str],
    own: Mapping[str, str],
    *,
    launcher: str | None = None,
    chosen: Collection[str] = (),
) -> dict[str, str]:
    """Return the environment of a rank.

    Args:
        inherited: The environment of the process that starts the rank.
        own: Variables of this rank.
        launcher: The launcher that the executor uses; the rank keeps its variables.
        chosen: Names of variables that the user has set for the ranks.
    """
    kept = (name for name in inherited if name in chosen or launcher_of(name, without=launcher) is None)
    return {name: inherited[name] for name in kept} | dict(own)
