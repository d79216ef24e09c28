#!/bin/bash
# Stops what start.sh has started and removes its folder.
#
#   usage: stop.sh DIR
DIR=$(realpath -m "$1")
export SLURM_CONF=$DIR/slurm.conf

# A zombie that no init reaps still answers kill -0, so its state is read instead.
is_alive() {
    local pid
    pid=$(cat "$1" 2>/dev/null) || return 1
    case "$(sed 's/.*) //;s/ .*//' "/proc/$pid/stat" 2>/dev/null)" in '' | Z) return 1 ;; esac
}

if is_alive "$DIR/run/slurmctld.pid"; then
    timeout 10 scancel -u "$(id -un)"
    deadline=$((SECONDS + 30))
    while ((SECONDS < deadline)) && [ -n "$(timeout 10 squeue -h)" ]; do
        sleep 0.1
    done
fi
for file in "$DIR"/run/slurmd.*.pid "$DIR"/run/{slurmctld,slurmdbd,database,munged}.pid; do
    is_alive "$file" || continue
    kill "$(cat "$file")"
    for ((i = 0; i < 200; i++)); do
        is_alive "$file" || break
        sleep 0.05
    done
    ! is_alive "$file" || kill -9 "$(cat "$file")"
done
rm -rf "$(readlink "$DIR/database")" "$DIR"
