#!/bin/bash

# Parameters
#SBATCH --account=vision
#SBATCH --comment='second try; $(date) #1'
#SBATCH --constraint='nvlink&ib'
#SBATCH --cpus-per-task=8
#SBATCH --dependency=afterok:17
#SBATCH --exclude=node9
#SBATCH --exclusive
#SBATCH --gpus-per-node=h100:4
#SBATCH --job-name=tiny-1
#SBATCH --licenses=data:1
#SBATCH --mail-type=END,FAIL
#SBATCH --mail-user=me@example.org
#SBATCH --mem=512G
#SBATCH --nodelist='node[1-4]'
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --open-mode=append
#SBATCH --output=/scratch/runs/tiny-1/logs/joined.log
#SBATCH --oversubscribe
#SBATCH --partition=gpu
#SBATCH --qos=high
#SBATCH --requeue
#SBATCH --reservation=maintenance
#SBATCH --signal=USR2@300
#SBATCH --time=2161

# setup
_nemo_run_dir=/scratch/runs/tiny-1
exec >>"$_nemo_run_dir"/logs/joined.log 2>&1
_nemo_run_finish() {
    _nemo_run_code=$?
    PYTHONPATH="$_nemo_run_dir"/code.zip${PYTHONPATH:+:$PYTHONPATH} /venv/bin/python -P -m executors.slurm.end "$_nemo_run_dir" "$_nemo_run_code" ${_nemo_run_at:+"$((_nemo_run_line - _nemo_run_at))"} || [ $? -ne 75 ] || _nemo_run_code=75
    exit "$_nemo_run_code"
}
trap _nemo_run_finish EXIT
# What ends the job ends srun too; an srun that this shell leaves behind would end the next start of the job.
trap : TERM
cd /home/me || exit 1
: "${HF_TOKEN:?is not in the environment of the job}"
export GREETING='it'"'"'s "me"'
export NCCL_DEBUG=INFO
export OMP_NUM_THREADS=8
export PYTHONUNBUFFERED=1
# The first line to fail ends the job. A writer whose reader has enough (SIGPIPE) has not failed.
set -o pipefail
trap '[ "$LINENO" -eq 1 ] || _nemo_run_line=$LINENO' DEBUG
trap '_nemo_run_code=$?; [ "${#BASH_SOURCE[@]}" -gt 1 ] || [ "$_nemo_run_code" -eq 141 ] || exit "$_nemo_run_code"' ERR
_nemo_run_at=$LINENO
module load cuda/12.4
module load 'it'"'"'s mine'
ulimit -n 65536
trap - DEBUG ERR
set +o pipefail
_nemo_run_at=
export PYTHONPATH="$_nemo_run_dir"/code.zip${PYTHONPATH:+:$PYTHONPATH}
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# A node's name need not be known to the resolver; its address is known to Slurm.
getent hosts "$MASTER_ADDR" >/dev/null ||
    MASTER_ADDR=$(scontrol show node "$MASTER_ADDR" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')
MASTER_PORT=$((20000 + (SLURM_JOB_ID * 7 + ${SLURM_RESTART_COUNT:-0}) % 10000))
export MASTER_ADDR MASTER_PORT
export SUBMITIT_LOG_LEVEL=WARNING

# command
export SUBMITIT_EXECUTOR=slurm
srun --kill-on-bad-exit=1 --cpus-per-task=8 --mpi=none /venv/bin/python -P -u -m submitit.core._submit /scratch/runs/tiny-1/slurm
