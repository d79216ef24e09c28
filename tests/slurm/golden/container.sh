#!/bin/bash

# Parameters
#SBATCH --job-name=tiny-1
#SBATCH --no-requeue
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --open-mode=append
#SBATCH --output=/scratch/runs/tiny-1/logs/joined.log
#SBATCH --signal=USR2@90

# setup
_nemo_run_dir=/scratch/runs/tiny-1
exec >>"$_nemo_run_dir"/logs/joined.log 2>&1
_nemo_run_finish() {
    _nemo_run_code=$?
    /venv/bin/python -P -m executors.slurm.end "$_nemo_run_dir" "$_nemo_run_code" || [ $? -ne 75 ] || _nemo_run_code=75
    exit "$_nemo_run_code"
}
trap _nemo_run_finish EXIT
# What ends the job ends srun too; an srun that this shell leaves behind would end the next start of the job.
trap : TERM
cd /home/me || exit 1
export PYTHONUNBUFFERED=1
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# A node's name need not be known to the resolver; its address is known to Slurm.
getent hosts "$MASTER_ADDR" >/dev/null ||
    MASTER_ADDR=$(scontrol show node "$MASTER_ADDR" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')
MASTER_PORT=$((20000 + (SLURM_JOB_ID * 7 + ${SLURM_RESTART_COUNT:-0}) % 10000))
export MASTER_ADDR MASTER_PORT
export SUBMITIT_LOG_LEVEL=WARNING

# command
export SUBMITIT_EXECUTOR=slurm
srun --kill-on-bad-exit=1 '--container-image=/images/neva recipes.sqsh' --container-mounts=/scratch/runs/tiny-1:/scratch/runs/tiny-1,/home/me:/home/me,/data:/data:ro --container-workdir=/home/me /usr/bin/python3 -P -u -m submitit.core._submit /scratch/runs/tiny-1/slurm
