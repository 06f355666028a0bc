"""gunicorn --preload: the pool is made and used in the parent, then the workers are forked."""

from __future__ import annotations

import itertools
import threading
import urllib.request
from collections import Counter

import pytest

pytestmark = pytest.mark.deploy

WORKERS = 2
REQUESTS = 100  # at least so many in each worker


def ask(address, prompt):
    with urllib.request.urlopen(f"{address}/?{prompt}", timeout=60) as response:
        process, answer = response.read().decode().split(" ", 1)
    return int(process), answer


class Clients:
    """Threads that go on asking until every worker has answered often enough."""

    def __init__(self, address):
        self._address = address
        self._prompts = (f"prompt-{number}" for number in itertools.count())
        self._lock = threading.Lock()
        self.answered = Counter()
        self.crossed = []
        self.failed = []

    def run(self, count):
        threads = [threading.Thread(target=self._ask) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)

    def _ask(self):
        while not self._enough():
            with self._lock:
                prompt = next(self._prompts)
            try:
                process, answer = ask(self._address, prompt)
            except OSError as error:
                self.failed.append(error)
                return
            with self._lock:
                self.answered[process] += 1
                if answer != prompt:
                    self.crossed.append((prompt, answer))

    def _enough(self):
        with self._lock:
            total = sum(self.answered.values())
            return total > 20 * WORKERS * REQUESTS or (
                len(self.answered) == WORKERS and min(self.answered.values()) >= REQUESTS
            )


@pytest.mark.smoke
@pytest.mark.parametrize("kind", [["--worker-class", "sync"], ["--worker-class", "gthread", "--threads", "8"]])
def test_workers_forked_from_a_used_pool_get_their_own_answers(server, python, kind):
    gunicorn = python(
        *("-m", "gunicorn", "--config", "gunicorn_config.py", "--workers", str(WORKERS), *kind),
        *("--bind", "127.0.0.1:0", "gunicorn_app:application"),
        CHAT_URL=server.base_url,
    )
    address = gunicorn.wait_for(r"Listening at: (http://\S+)").group(1)

    clients = Clients(address)
    clients.run(16)

    assert (clients.failed, clients.crossed) == ([], [])
    assert len(clients.answered) == WORKERS
    assert min(clients.answered.values()) >= REQUESTS
    of_parent = {request.connection for request in server.requests if not request.prompt.startswith("prompt")}
    of_workers = {request.connection for request in server.requests if request.prompt.startswith("prompt")}
    assert of_parent
    assert not of_parent & of_workers, "a worker has used a connection of the parent's"
    assert server.open_connections == server.connections, "a connection was closed"

    assert gunicorn.end() == 0
    assert "Traceback" not in gunicorn.output
    server.wait_until(lambda: server.open_connections == 0)
