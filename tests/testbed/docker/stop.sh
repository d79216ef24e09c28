#!/usr/bin/env bash
# Stop the engine of a folder and remove what it holds. usage: stop.sh FOLDER
set -euo pipefail
folder=$(realpath -m "$1")
if [ -S "$folder/docker.sock" ]; then
    export DOCKER_HOST="unix://$folder/docker.sock"
    docker ps --all --quiet 2>/dev/null | xargs --no-run-if-empty docker rm --force >/dev/null || true
fi
if [ -f "$folder/dockerd.pid" ]; then
    pid=$(cat "$folder/dockerd.pid")
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 1200); do
        # A zombie whose parent does not reap it is as good as gone.
        case "$(sed 's/.*) //;s/ .*//' "/proc/$pid/stat" 2>/dev/null)" in '' | Z) break ;; esac
        sleep 0.05
    done
fi
# Where the engine was killed, its containers are left: each has a parent that names the engine's folder.
{ grep -laF -f <(echo "$folder/exec/") /proc/[0-9]*/cmdline 2>/dev/null || true; } | while read -r file; do
    process=${file%/cmdline}
    kill -9 $(cat "$process"/task/*/children 2>/dev/null) "${process#/proc/}" 2>/dev/null || true
done
sleep 0.1
# The engine leaves the mount of the host's network namespace behind, and those of containers if it was killed.
awk -v folder="$folder/" 'index($5, folder) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r mount; do
    umount --lazy "$mount" 2>/dev/null || true
done
rm -rf "$folder"
