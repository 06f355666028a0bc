"""A file of rows that shards are made of, a server that holds back its answers, and how every row was answered."""

from __future__ import annotations

import collections
import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from chatpool import JournalBusyError
from chatpool.batch import shards

HUNG = 180  # seconds: what takes as long does not end at all


class Gate:
    """A script for the server: answers so many requests, and holds back all others until it is opened.

    With no more than a shard has rows besides those in flight, every shard that runs has all of its workers waiting.
    """

    def __init__(self, free):
        self._free = free
        self._changed = threading.Condition()
        self.opened = threading.Event()
        self.waiting = 0

    def __call__(self, request):
        with self._changed:
            self._free -= 1
            is_free = self._free >= 0
            if not is_free:
                self.waiting += 1
                self._changed.notify_all()
        if not is_free:
            self.opened.wait(HUNG)

    def wait_until_waiting(self, count):
        with self._changed:
            assert self._changed.wait_for(lambda: self.waiting >= count, HUNG), f"{self.waiting} requests have come"


def write_rows(path, rows):
    """Write a file of so many rows, whose prompts are their custom_ids."""
    names = [f"row {number}" for number in range(rows)]
    path.write_text("".join(json.dumps({"custom_id": name, "prompt": name}) + "\n" for name in names))
    return path


def check(server, work, rows, repeated=0):
    """Every row is answered once; the server has seen at most so many again."""
    check_merged(work, rows)
    sent = collections.Counter(request.prompt for request in server.requests)
    assert rows <= sum(sent.values()) <= rows + repeated, sent.most_common(5)


def check_merged(work, rows):
    """Every row is answered once, in the order of the input."""
    result = shards.merge(work, work / "merged.jsonl")
    answers = [json.loads(line) for line in (work / "merged.jsonl").read_text().splitlines()]
    assert [line["custom_id"] for line in answers] == [f"row {number}" for number in range(rows)]
    assert [line["response"]["body"]["choices"][0]["message"]["content"] for line in answers] == [
        f"row {number}" for number in range(rows)
    ]
    assert (result.succeeded, result.failed, result.pending) == (rows, 0, 0)


@contextlib.contextmanager
def running_here(server, work, index):
    """Within the block this process runs a shard, and the server holds back all answers."""
    gate = Gate(0)
    server.set_script(gate)
    options = {"model": "m", "base_url": server.base_url, "api_key": "sk-of-this-process", "progress": False}
    with ThreadPoolExecutor(1) as executor:
        running = executor.submit(shards.run, work, index, **options)
        try:
            gate.wait_until_waiting(1)
            yield
        finally:
            gate.opened.set()
        assert running.result(HUNG)["pending"] == 0


def process_of(work, index):
    """The process that runs a shard."""
    with pytest.raises(JournalBusyError) as busy:
        shards.run(work, index, model="m", api_key="sk-of-nobody", base_url="http://127.0.0.1:9")
    return busy.value.pid
