#!/bin/bash
# Starts a Slurm cluster of several nodes on this machine's loopback, as root and without systemd.
#
#   usage: start.sh DIR PORT [NODES [GPUS]]      everything lies under DIR; ports PORT to PORT+10+NODES are taken,
#                                                or free ones if PORT is `any`
#
# KILL_WAIT is how many seconds lie between the SIGTERM and the SIGKILL to a job that is ended (5). What is slow is not to
# be taken for dead: a node is given up when it has not answered for SLURMD_TIMEOUT seconds (120), and a command when it
# has waited for MESSAGE_TIMEOUT (60). Where nodes die, both are to be short: what was on its way to a node is handed to
# the next start of the job otherwise.
# Afterwards SLURM_CONF=DIR/slurm.conf is all that Slurm's commands need. Partitions: main (preempts nothing), low
# (its jobs are requeued when high wants their nodes), high, and short (no job is longer than two minutes). There is
# one account, lab; jobs of another one are refused.
set -euo pipefail
export PATH=/usr/sbin:/sbin:$PATH
DIR=$(realpath -m "$1") PORT=$2 NODES=${3:-2} GPUS=${4:-4}
HOST=$(hostname -s)
[ "$PORT" != any ] || PORT=$(python3 "$(dirname "$0")/free_ports.py")

# Waits until a command succeeds.
await() {
    local deadline=$((SECONDS + 90))
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS > deadline)); then
            echo "waited in vain for: $*; see $DIR/log" >&2
            return 1
        fi
        sleep 0.05
    done
}

mkdir -p "$DIR"/{log,run,state,spool,devices,munge}
chmod 755 "$DIR" "$DIR"/*
chmod 700 "$DIR/munge"
MUNGE=$DIR/run/munge.socket

# Any character device passes for a GPU.
for ((i = 0; i < GPUS; i++)); do
    [ -e "$DIR/devices/gpu$i" ] || mknod "$DIR/devices/gpu$i" c 1 3
done

head -c 128 /dev/urandom >"$DIR/munge/key"
chmod 600 "$DIR/munge/key"
munged --key-file="$DIR/munge/key" --socket="$MUNGE" --pid-file="$DIR/run/munged.pid" \
    --log-file="$DIR/munge/munged.log" --seed-file="$DIR/munge/seed" --num-threads=2

# sacct needs the database; in memory, for on a slow disk its creation takes most of the time.
DATABASE=$(mktemp -d /dev/shm/slurm-database.XXXXXX)
ln -sfn "$DATABASE" "$DIR/database"
mariadb-install-db --no-defaults --datadir="$DATABASE" --user=root --auth-root-authentication-method=normal \
    --skip-test-db --skip-name-resolve >"$DIR/log/install-database.log" 2>&1
setsid mariadbd --no-defaults --datadir="$DATABASE" --socket="$DIR/run/database.sock" --pid-file="$DIR/run/database.pid" \
    --skip-networking --user=root --innodb-buffer-pool-size=32M --innodb-flush-log-at-trx-commit=0 \
    --innodb-log-file-size=8M --innodb-lock-wait-timeout=900 </dev/null >"$DIR/log/database.log" 2>&1 &
await test -S "$DIR/run/database.sock"

cat >"$DIR/slurmdbd.conf" <<END
AuthType=auth/munge
AuthInfo=socket=$MUNGE,cred_expire=10
MessageTimeout=60
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$((PORT + 1))
CommunicationParameters=NoInAddrAny
SlurmUser=root
PidFile=$DIR/run/slurmdbd.pid
LogFile=$DIR/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
END
chmod 600 "$DIR/slurmdbd.conf"

# cred_expire and sched_interval make a requeue a matter of seconds; by default it takes more than two minutes.
# The port that ranks meet at follows from the number of the job, so those of several clusters are to be apart.
cat >"$DIR/slurm.conf" <<END
ClusterName=testbed
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$PORT
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$MUNGE,cred_expire=10
CredType=cred/munge
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool/%n
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmdPidFile=$DIR/run/slurmd.%n.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
JobRequeue=1
ReturnToService=2
InactiveLimit=0
KillWait=${KILL_WAIT:-5}
OverTimeLimit=0
SlurmdTimeout=${SLURMD_TIMEOUT:-120}
MessageTimeout=${MESSAGE_TIMEOUT:-60}
MinJobAge=600
CompleteWait=0
MaxArraySize=${MAX_ARRAY_SIZE:-2001}
FirstJobId=$(shuf -i 1000-60000000 -n 1)
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort=$((PORT + 1))
AccountingStoragePass=$MUNGE
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=associations,qos
GresTypes=gpu
NodeName=node[1-$NODES] NodeHostname=$HOST NodeAddr=127.0.0.1 Port=[$((PORT + 11))-$((PORT + 10 + NODES))] CPUs=16 RealMemory=1000000 Gres=gpu:h100:$GPUS State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=10
PartitionName=low Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=100 PreemptMode=OFF
PartitionName=short Nodes=ALL MaxTime=2 State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=closed Nodes=ALL MaxTime=INFINITE State=DOWN PriorityTier=10
END
echo "Name=gpu Type=h100 File=$DIR/devices/gpu[0-$((GPUS - 1))]" >"$DIR/gres.conf"
export SLURM_CONF=$DIR/slurm.conf

MYSQL_UNIX_PORT="$DIR/run/database.sock" slurmdbd
await timeout 10 sacctmgr -n -i show cluster
sacctmgr -i -Q add cluster testbed >/dev/null
sacctmgr -i -Q add account lab >/dev/null
sacctmgr -i -Q add user root account=lab >/dev/null
slurmctld
for ((i = 1; i <= NODES; i++)); do
    mkdir -p "$DIR/spool/node$i"
    slurmd -N "node$i"
done
are_up() { [ "$(sinfo -h -N -p main -t idle -o %n | wc -l)" = "$NODES" ]; }
await are_up || { sinfo -N -p main -o '%N %t %E' >&2 && exit 1; }
