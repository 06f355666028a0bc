"""Shards as an array of Slurm's, with Debian's Slurm: one node, two of its four processors for the array at a time."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from chatpool.batch import shards
from tests.deploy.shard_files import HUNG, Gate, check, running_here, write_rows

pytestmark = pytest.mark.cluster

SCRIPT = Path(__file__).parents[2] / "examples" / "shards.sbatch"
KEY = "sk-of-the-array"
SLOW = 600  # seconds: a task that runs again waits, and a time limit is minutes
ROWS, SHARD_ROWS, MAX_WORKERS, AT_ONCE = 120, 30, 16, 2
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}

# cred_expire: the seconds that a task waits before it runs again.  KillWait: those from SIGTERM to SIGKILL.
CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge,cred_expire=1
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
KillWait=30
MinJobAge=3600
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=4096 State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2
"""


def free_ports(count):
    with_port = [socket.socket() for _ in range(count)]
    for one in with_port:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in with_port]
    for one in with_port:
        one.close()
    return ports


def program(name):
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
    if found is None:
        pytest.skip(f"there is no {name}: scripts/cluster-tests.sh installs Debian's")
    return found


class Slurm:
    """A cluster of one node, whose jobs see ``environment``."""

    def __init__(self, environment, folder):
        self._environment = environment
        self.folder = folder

    def command(self, *command, may_fail=False):
        done = subprocess.run(
            command, env=self._environment, cwd=self.folder, capture_output=True, text=True, timeout=HUNG, check=False
        )
        assert may_fail or done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def submit(self, *arguments, options=()):
        """Start an array of the example's, and return its number."""
        array = f"--array=0-{ROWS // SHARD_ROWS - 1}%{AT_ONCE}"
        said = self.command("sbatch", array, *options, str(SCRIPT), *map(str, arguments), "--model", "m", "--quiet")
        return said.split()[-1]

    def states(self, job):
        """The state and the exit status of each task, by its number; those that wait are together."""
        # Asked again and again: a busy controller breaks a connection now and then.
        shown = self.command("scontrol", "show", "job", job, "--oneliner", may_fail=True)
        pattern = r"ArrayTaskId=(\S+) .*JobState=(\S+) .*ExitCode=(\d+):"
        return {task: (state, int(code)) for task, state, code in re.findall(pattern, shown)}

    def wait(self, condition):
        """Wait until there is something of the condition."""
        polls = threading.Event()  # no event tells of the state of a job: it is asked for
        deadline = time.monotonic() + SLOW
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            polls.wait(0.5)
        raise AssertionError(self.command("squeue") + self.log())

    def wait_for_end(self, job):
        """The states and exit statuses of the tasks of an array that have all ended."""

        def ended():
            states = self.states(job)
            return all(state in ENDED for state, _ in states.values()) and list(states.values())

        return self.wait(ended)

    def log(self):
        """What the tasks have said."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("answers-*.log")))


@pytest.fixture
def slurm(start, server, tmp_path):
    """A Slurm of the test's own, on sockets and ports of its own."""
    daemons = [program(name) for name in ("munged", "slurmctld", "slurmd")]
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:
        folder = Path(name)
        for made in ("state", "spool", "bin"):
            (folder / made).mkdir()
        (folder / "key").write_bytes(os.urandom(1024))
        (folder / "key").chmod(0o600)
        host, user = socket.gethostname().partition(".")[0], getpass.getuser()
        text = CONFIGURATION.format(folder=folder, host=host, user=user, ports=free_ports(2))
        (folder / "slurm.conf").write_text(text)
        command = folder / "bin" / "chatpool"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m chatpool.cli "$@"\n')
        command.chmod(0o755)
        environment = {
            "SLURM_CONF": f"{folder}/slurm.conf",
            "PATH": f"{folder}/bin:{os.environ['PATH']}",
            "PYTHONPATH": os.environ.get("PYTHONPATH", str(SCRIPT.parents[1])),
            "OPENAI_BASE_URL": server.base_url,
            "OPENAI_API_KEY": KEY,
        }
        files = [f"--{name}={folder}/{name}" for name in ("pid-file", "log-file", "seed-file")]
        munged = start(
            daemons[0], "--foreground", "--force", f"--key-file={folder}/key", f"--socket={folder}/munge", *files
        )
        jobs = Slurm({**os.environ, **environment}, tmp_path)
        jobs.wait(lambda: (folder / "munge").exists())
        controller = start(daemons[1], "-D", "-c", **environment)
        controller.wait_for("Running as primary controller")
        node = start(daemons[2], "-D", "-c", **environment)
        jobs.wait(lambda: "idle" in jobs.command("sinfo"))
        yield jobs
        for each in (node, controller, munged):
            each.end()


@pytest.fixture
def work(tmp_path):
    """A folder of four shards."""
    shards.split(write_rows(tmp_path / "big.jsonl", ROWS), tmp_path / "work", rows=SHARD_ROWS)
    return tmp_path / "work"


DONE = ("COMPLETED", 0)


def test_each_task_of_an_array_answers_its_shard(slurm, server, work):
    job = slurm.submit(work)
    assert slurm.wait_for_end(job) == [DONE] * 4, slurm.log()
    check(server, work, ROWS)
    assert KEY not in slurm.log()


def test_a_task_that_is_preempted_goes_on(slurm, server, work):
    gate = Gate(20)
    server.set_script(gate)
    job = slurm.submit(work)
    gate.wait_until_waiting(MAX_WORKERS + 1)  # of two tasks
    slurm.command("sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=true")
    slurm.wait(lambda: slurm.log().count("DUE TO PREEMPTION") >= AT_ONCE)
    gate.opened.set()
    assert slurm.wait_for_end(job) == [DONE] * 4, slurm.log()
    check(server, work, ROWS, repeated=AT_ONCE * MAX_WORKERS)


def test_a_task_whose_time_is_nearly_over_ends_by_itself_and_runs_again(slurm, server, work):
    gate = Gate(20)
    server.set_script(gate)
    job = slurm.submit(work, options=["--time=2", "--signal=TERM@110"])
    gate.wait_until_waiting(MAX_WORKERS + 1)  # of two tasks
    slurm.wait(lambda: slurm.log().count("terminated") >= AT_ONCE)
    gate.opened.set()
    assert slurm.wait_for_end(job) == [DONE] * 4, slurm.log()
    assert "TIME LIMIT" not in slurm.log()
    check(server, work, ROWS, repeated=slurm.log().count("terminated") * MAX_WORKERS)


def test_an_array_that_is_cancelled_stays_so_and_the_next_one_goes_on(slurm, server, work):
    gate = Gate(20)
    server.set_script(gate)
    job = slurm.submit(work)
    gate.wait_until_waiting(MAX_WORKERS + 1)  # of two tasks
    slurm.command("scancel", job)
    assert {state for state, _ in slurm.wait_for_end(job)} == {"CANCELLED"}
    gate.opened.set()
    again = slurm.submit(work)
    assert slurm.wait_for_end(again) == [DONE] * 4, slurm.log()
    assert {state for state, _ in slurm.states(job).values()} == {"CANCELLED"}
    check(server, work, ROWS, repeated=AT_ONCE * MAX_WORKERS)


def test_a_shard_that_another_process_has_is_tried_again(slurm, server, work):
    with running_here(server, work, 0):
        job = slurm.submit(work)
        slurm.wait(lambda: slurm.log() and slurm.states(job).get("0") == ("PENDING", 0))  # not for the first time
    assert slurm.wait_for_end(job) == [DONE] * 4, slurm.log()
    check(server, work, ROWS)
