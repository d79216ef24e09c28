#!/usr/bin/env bash
# Start a Docker engine of its own by hand, as root and without systemd. usage: start.sh FOLDER
# Prints the address for DOCKER_HOST. No bridge and no firewall rules: containers have the loopback interface alone.
set -euo pipefail
folder=$(realpath -m "$1")
mkdir -p "$folder"
rm -f "$folder/docker.sock" "$folder/dockerd.pid" "$folder/exec/containerd/containerd.pid"
setsid dockerd --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/dockerd.pid" \
    -H "unix://$folder/docker.sock" --storage-driver "${DOCKER_STORAGE_DRIVER:-overlay2}" \
    --bridge none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false \
    </dev/null >>"$folder/dockerd.log" 2>&1 &
for _ in $(seq 1200); do
    if DOCKER_HOST="unix://$folder/docker.sock" docker version >/dev/null 2>&1; then
        echo "unix://$folder/docker.sock"
        exit 0
    fi
    kill -0 $! 2>/dev/null || break
    sleep 0.05
done
tail -n 20 "$folder/dockerd.log" >&2
exit 1
