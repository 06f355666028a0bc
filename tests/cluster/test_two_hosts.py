"""Two hosts for real: each with a network, a name and process ids of its own, and a file system from a third over it.

The third has the files (sshd, mounted by sshfs), a Redis and the model.  Locks do not reach from one host to the other.
"""

from __future__ import annotations

import collections
import itertools
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from chatpool.batch import shards
from tests.deploy.shard_files import check_merged, write_rows

pytestmark = pytest.mark.cluster

HUNG = 300
STORE = "10.77.0.1"
MODEL_PORT, REDIS_PORT, SSH_PORT = 8000, 6379, 2222
# A tenth of what it is otherwise.
BEATS = {"_BEAT_SECONDS": 1, "_LOST_SECONDS": 6, "_OWN_SECONDS": 4.5, "_WATCH_SECONDS": 2}
MOUNT = (
    "reconnect,ServerAliveInterval=1,ServerAliveCountMax=3,StrictHostKeyChecking=no,UserKnownHostsFile=/dev/null,"
    f"ConnectTimeout=2,Port={SSH_PORT}"
)
SSHD = f"""
Port {SSH_PORT}
ListenAddress {STORE}
HostKey {{folder}}/key
AuthorizedKeysFile {{folder}}/key.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
Subsystem sftp internal-sftp
"""


def run(*command):
    subprocess.run(command, check=True, capture_output=True, text=True)


class Network:
    """Namespaces on a bridge that is in that of the store; each is removed at the end."""

    def __init__(self):
        self._names = itertools.count(2)
        self._made = []
        self.store = self._make("store")
        run("ip", "-n", self.store, "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", self.store, "addr", "add", f"{STORE}/24", "dev", "bridge")
        run("ip", "-n", self.store, "link", "set", "bridge", "up")

    def _make(self, name):
        namespace = f"chatpool-{os.getpid()}-{name}"
        run("ip", "netns", "add", namespace)
        self._made.append(namespace)
        run("ip", "-n", namespace, "link", "set", "lo", "up")
        return namespace

    def add_host(self, name):
        """Make a namespace with an address of its own, and return it."""
        namespace = self._make(name)
        run("ip", "link", "add", name, "netns", self.store, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        run("ip", "-n", self.store, "link", "set", name, "master", "bridge", "up")
        run("ip", "-n", namespace, "addr", "add", f"10.77.0.{next(self._names)}/24", "dev", "eth0")
        run("ip", "-n", namespace, "link", "set", "eth0", "up")
        return namespace

    def plug(self, name, state):
        """Pull a host's plug (``down``), or put it in again (``up``)."""
        run("ip", "-n", self.store, "link", "set", name, state)

    def close(self):
        for namespace in self._made:
            run("ip", "netns", "del", namespace)


@pytest.fixture
def network():
    for program in ("ip", "unshare", "sshfs", "socat", "/usr/sbin/sshd", "redis-server"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}: scripts/cluster-tests.sh installs Debian's")
    try:
        network = Network()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip()}")
    yield network
    network.close()


@pytest.fixture
def in_store(network, start):
    """A function that starts a program on the third host."""
    return lambda *command: start("ip", "netns", "exec", network.store, *command)


@pytest.fixture
def redis_url(in_store, tmp_path):
    options = (
        "--bind",
        STORE,
        "--port",
        str(REDIS_PORT),
        "--protected-mode",
        "no",
        "--save",
        "",
        "--dir",
        str(tmp_path),
    )
    in_store("redis-server", *options).wait_for("(?i)ready to accept connections")
    return f"redis://{STORE}:{REDIS_PORT}/our-account"


@pytest.fixture
def files(in_store, tmp_path):
    """The folder that both hosts mount."""
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key"))
    (tmp_path / "sshd_config").write_text(SSHD.format(folder=tmp_path))
    os.makedirs("/run/sshd", exist_ok=True)  # sshd's own, which its service makes
    in_store("/usr/sbin/sshd", "-D", "-e", "-f", str(tmp_path / "sshd_config")).wait_for("Server listening")
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


@pytest.fixture
def model(in_store):
    """``model(seconds)`` starts a model that takes so long for an answer, and returns its program."""

    def serve(seconds):
        program = in_store(sys.executable, "model_server.py", str(MODEL_PORT), str(seconds))
        program.wait_for("serving")
        forward = f"TCP-LISTEN:{MODEL_PORT},bind={STORE},fork,reuseaddr"
        in_store("socat", forward, f"TCP:127.0.0.1:{MODEL_PORT}")
        return program

    return serve


@pytest.fixture
def host(network, start, files, tmp_path):
    """``host(name, **options)`` starts a host that runs the shards of the plan in ``files``."""

    def begin(name, **options):
        mount = f"sshfs -o {MOUNT},IdentityFile={tmp_path}/key root@{STORE}:{files} {tmp_path}/{name}"
        (tmp_path / name).mkdir()
        options = json.dumps({"base_url": f"http://{STORE}:{MODEL_PORT}/v1", "max_workers": 4, "timeout": 5, **options})
        script = (
            f"hostname {name} && {mount} && exec {sys.executable} shards_host.py {tmp_path}/{name}/work '{options}'"
        )
        unshare = ("unshare", "--uts", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc")
        program = start("ip", "netns", "exec", network.add_host(name), *unshare, "sh", "-c", script)
        program.wait_for(f"ready {name}", HUNG)
        return program

    return begin


def requests_in(program):
    """(seconds, prompt) of each request that a model has had."""
    return [(float(at), prompt) for at, prompt in re.findall(r"request ([\d.]+) (.*)", program.output)]


def test_the_limit_holds_over_both_hosts(files, model, redis_url, host):
    rows, per_minute = 900, 600
    shards.split(write_rows(files / "in.jsonl", rows), files / "work", rows=100)
    server = model(0.1)
    limits = {"requests_per_minute": per_minute, "scope": redis_url}
    hosts = [host(name, limits=limits) for name in ("host-a", "host-b")]
    for each in hosts:
        each.wait_for("nothing is left", HUNG)
    moments = sorted(at for at, _ in requests_in(server))
    fullest = max(sum(1 for at in moments if first <= at < first + 60) for first in moments)
    print(f"{rows} rows at {per_minute} a minute, fullest minute: {fullest}, seconds: {moments[-1] - moments[0]:.1f}")
    assert fullest <= per_minute
    assert all(len(re.findall("ended", each.output)) > 1 for each in hosts), "one of them has done all of the work"
    assert len(moments) == rows
    check_merged(files / "work", rows)


@pytest.mark.parametrize("beats", [BEATS], ids=["short leases"])
def test_a_host_that_is_cut_off_is_followed_and_spoils_nothing_when_it_is_back(network, files, model, host, beats):
    rows = 120
    shards.split(write_rows(files / "in.jsonl", rows), files / "work", rows=60)
    server = model(0.2)
    first = host("host-a", beats=beats)
    server.wait_for(r"(request.*\n(.*\n)*?){20}", HUNG)
    network.plug("host-a", "down")
    second = host("host-b", beats=beats)
    second.wait_for("left 0 JournalBusyError .* in use by process .* on host-a", HUNG)
    second.wait_for("nothing is left", HUNG)
    check_merged(files / "work", rows)
    network.plug("host-a", "up")
    first.wait_for("nothing is left", HUNG)
    assert re.search("left 0 (JournalLostError|OSError)", first.output), first.output
    check_merged(files / "work", rows)
    sent = collections.Counter(prompt for _, prompt in requests_in(server))
    print(f"sent again: {sum(sent.values()) - rows}")
    # What was in flight, and the answers of the last second, which were not yet written to the disk of the third host.
    assert sum(sent.values()) - rows <= 4 + 4 * 2 / 0.2
