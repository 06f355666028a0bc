"""A server with the Batch API, and a submission at it, for the tests of batches."""

from __future__ import annotations

import json

import pytest

import chatpool
from chatpool import batch
from chatpool.testing import BatchScenario

__all__ = ["AT_ONCE", "Api", "api_with", "batch_rows_at", "prompts_asked"]

AT_ONCE = BatchScenario(polls=0)
"""Batches that are over when they are first looked at."""


class Api:
    """A pool and its server, and the files of one submission.

    Attributes:
        server: the server.
        pool: a pool with the model ``m``.
        folder: the folder of all files.
        output: the output.
    """

    def __init__(self, server, pool, folder):
        self.server, self.pool, self.folder = server, pool, folder
        self.output = folder / "out.jsonl"

    def submit(self, source, **options):
        return batch.submit(source, self.output, pool=self.pool, **options)

    def status(self):
        return batch.status(self.output, pool=self.pool)

    def wait(self, **options):
        return batch.wait(self.output, pool=self.pool, progress=False, **options)

    def collect(self, **options):
        return batch.collect(self.output, pool=self.pool, progress=False, **options)

    def cancel(self):
        return batch.cancel(self.output, pool=self.pool)

    def run(self, source, **options):
        return batch.run(source, self.output, pool=self.pool, progress=False, **options)

    def answer(self, source, **options):
        """Submit, wait and collect."""
        self.submit(source, **options)
        self.wait()
        return self.collect()

    @property
    def journal(self):
        """The events of the submission's journal."""
        return [json.loads(line) for line in (self.folder / "out.batches" / "journal").read_text().splitlines()]

    def sent(self, method, end):
        """The requests by this method whose path ends so."""
        return [each for each in self.server.requests if each.method == method and each.path.endswith(end)]


@pytest.fixture
def api_with(instant_waits, chatpool_server_factory, tmp_path):
    """``api_with(batches=..., ...)`` is an :class:`Api` whose server has these options; its waits are instant."""
    pools = []

    def make(**options):
        server = chatpool_server_factory(**{"batches": AT_ONCE, **options})
        pools.append(chatpool.ChatPool("m", base_url=server.base_url, api_key="k", max_workers=4))
        return Api(server, pools[-1], tmp_path)

    yield make
    for pool in pools:
        pool.abort()


def batch_rows_at(server):
    """The custom_ids in the input files of all batches of a server, in the order of the batches."""
    contents = {file.id: file.content for file in server.files}
    return [
        json.loads(line)["custom_id"]
        for each in server.batches
        for line in contents[each["input_file_id"]].splitlines()
    ]


def prompts_asked(api):
    """The prompts that were sent as ordinary calls."""
    return [request.prompt for request in api.sent("POST", "/chat/completions")]
