#!/usr/bin/env bash
# The tests of clusters (Dask, Ray, Spark, Slurm, hosts in network namespaces), with an interpreter that has
# chatpool[test,cluster].  Redis, Spark's Java, Slurm and ip come from Debian's packages where they are missing; the
# tests start servers of their own, and end them.
#
#   scripts/cluster-tests.sh PYTHON [PYTEST ARGUMENTS]
set -euo pipefail
cd "$(dirname "$0")/.."

python=${1:?the interpreter that has chatpool[test,cluster]: scripts/cluster-tests.sh .venvs/cluster/bin/python}
shift

. scripts/debian.sh
export PATH="$PATH:/usr/sbin" # where Debian has ip and slurmd, and not every user's PATH
needs redis-server java:default-jre-headless ip:iproute2 sshfs sshd:openssh-server socat slurmctld slurmd sbatch:slurm-client \
    munged:munge

exec "$python" -m pytest -m cluster -o faulthandler_timeout=900 tests/cluster "$@"
