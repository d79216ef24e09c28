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
    for _ in $(seq 300); do
        # A zombie whose parent does not reap it is as good as gone.
        case "$(sed 's/.*) //;s/ .*//' "/proc/$pid/stat" 2>/dev/null)" in '' | Z) break ;; esac
        sleep 0.05
    done
fi
# The engine leaves the mount of the host's network namespace behind.
umount "$folder"/exec/netns/* 2>/dev/null || true
rm -rf "$folder"
