"""Calls and streams against a server that answers with damaged HTTP: each ends, in time, and leaves nothing behind."""

from __future__ import annotations

import itertools
import json
import os
import random
import socket
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from pathlib import Path

import pytest

from chatpool import ChatPool, Timeout
from chatpool.errors import ChatPoolError

pytestmark = pytest.mark.faults

SEED = int(os.environ.get("CHATPOOL_FUZZ_SEED", "1"))
CALLERS = 16
LIMITS = Timeout(connect=1, attempt=0.4, read=0.4, total=1.5)
HUNG = 60  # seconds: what a damaged answer holds up without a limit is held up for ever


def text_for(prompt):
    """An answer that shows whose it is, also where bytes of it were changed."""
    return f"{prompt} {zlib.crc32(prompt.encode()):08x}"


def belongs_to(text, prompt):
    """Whether an answer is this prompt's, or so damaged that it is nobody's."""
    name, _, check = text.rpartition(" ")
    return name == prompt or check != f"{zlib.crc32(name.encode()):08x}"


# -- whole answers --------------------------------------------------------------------------------------------------


def chunked(pieces):
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""] if piece) + b"0\r\n\r\n"


def whole(prompt, streamed, rng):
    """Head and body of an answer as it should be."""
    text = text_for(prompt)
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    if not streamed:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        bodies = [json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()]
        kind = "application/json"
    else:
        deltas = [{"role": "assistant"}, *({"content": part} for part in (text[:4], text[4:])), {}]
        events = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
        events[-1]["choices"][0]["finish_reason"] = "stop"
        bodies = [b"data: %s\n\n" % json.dumps(event).encode() for event in events] + [b"data: [DONE]\n\n"]
        kind = "text/event-stream"
    head = ["HTTP/1.1 200 OK", f"Content-Type: {kind}"]
    form = rng.choice(("length", "chunks", "close"))
    body = b"".join(bodies)
    if form == "length":
        head.append(f"Content-Length: {len(body)}")
    elif form == "chunks":
        head.append("Transfer-Encoding: chunked")
        body = chunked(bodies)
    else:
        head.append("Connection: close")
    return [*head, "", ""], body, form == "close"


# -- damage: each takes the answer's bytes and gives (pieces to send, what then) -------------------------------------

FIELDS = [
    "Content-Length: -1",
    "Content-Length: 5",
    "Content-Length: 99999999",
    "Content-Length: 1e3",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked",
    "Content-Encoding: gzip",
    "Content-Encoding: br",
    "Retry-After: 0.01",
    "Retry-After: 9" + "9" * 400,
    "x-ratelimit-reset-requests: nan",
    "Location: http://example.invalid/",
    "Content-Type: text/html; charset=utf-7",
    "no field",
    "X-Long: " + "x" * 70_000,
    "Connection: upgrade",
    "X-Nul: a\0b",
]
STATUSES = [f"HTTP/1.1 {status} Odd" for status in (100, 103, 204, 301, 307, 400, 401, 404, 429, 500, 503, 599, 999)]
STATUSES += ["HTTP/9.9 200 OK", "ICY 200 OK", "HTTP/1.1 -5", "", "\0\0\0", "HTTP/1.1 2000 OK"]


def parts(data, rng, most):
    """The data in pieces."""
    places = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randint(1, most)))
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)])]


def untouched(data, rng):
    return [data], "keep"


def cut_off(data, rng):
    return [data[: rng.randrange(len(data))]], rng.choice(("close", "reset"))


def stalled(data, rng):
    return [data[: rng.randrange(len(data))]], "hang"


def delayed(data, rng):
    return parts(data, rng, 4), "keep"


def dripping(data, rng):
    return [bytes([byte]) for byte in data], "keep"


def doubled(data, rng):
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return [rng.choice((data + data, data[:end] + data[start:]))], "keep"


def changed_bytes(data, rng):
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 8))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return [bytes(changed)], "keep"


def mixed_with_garbage(data, rng):
    start = rng.randrange(len(data))
    return [data[:start] + rng.randbytes(rng.choice((1, 40, 3000))) + data[start:]], "keep"


def garbage_only(data, rng):
    return [rng.randbytes(rng.choice((1, 200, 20_000)))], rng.choice(("close", "keep"))


def without_end(data, rng):
    return itertools.repeat(data[-rng.randint(1, len(data)) :] * 20), "close"


def silence(data, rng):
    return [], rng.choice(("close", "reset", "hang"))


DAMAGES = [
    cut_off,
    stalled,
    delayed,
    dripping,
    doubled,
    changed_bytes,
    mixed_with_garbage,
    garbage_only,
    without_end,
    silence,
]


class DamagingServer:
    """A script for each connection: half of the answers are damaged, always the same ones for one seed."""

    def __init__(self):
        self.sent = Counter()
        self._times = Counter()
        self._lock = threading.Lock()

    def __call__(self, peer):
        while (request := peer.read_request()) is not None:
            body = json.loads(request[1])
            prompt = body["messages"][-1]["content"]
            with self._lock:
                self._times[prompt] += 1
                rng = random.Random(f"{SEED} {prompt} {self._times[prompt]}")
            if not self._answer(peer, prompt, body.get("stream", False), rng):
                return

    def _answer(self, peer, prompt, streamed, rng):
        head, body, closes = whole(prompt, streamed, rng)
        damage = rng.choice(DAMAGES) if rng.random() < 0.4 else untouched
        name = damage.__name__
        if rng.random() < 0.1:
            head[0], name = rng.choice(STATUSES), f"{name}, another status"
        if rng.random() < 0.1:
            head[rng.randint(1, len(head) - 2) : 0] = [rng.choice(FIELDS)]
            name += ", an odd field"
        with self._lock:
            self.sent[name] += 1
        pieces, then = damage("\r\n".join(head).encode("latin-1") + body, rng)
        for piece in pieces:
            if not peer.send(piece) or (len(piece) < 200 and peer.server.over.wait(0.002)):
                return False
        if then == "hang":
            while peer.read():
                pass
        elif then == "reset":
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return then == "keep" and not closes


def open_sockets():
    """How many sockets this process has; 0 where nothing says so."""
    found = 0
    for each in Path("/proc/self/fd").iterdir() if sys.platform.startswith("linux") else ():
        try:
            found += os.readlink(each).startswith("socket:")
        except OSError:
            continue
    return found


class Callers:
    """Threads that call, and what came of it."""

    def __init__(self, pool, count, streamed):
        self._pool, self._streamed = pool, streamed
        self._numbers = iter(range(count))
        self._lock = threading.Lock()
        self.ended, self.wrong, self.latest = Counter(), [], 0.0
        self.threads = [threading.Thread(target=self._run, daemon=True) for _ in range(CALLERS)]
        for thread in self.threads:
            thread.start()

    def _run(self):
        while True:
            with self._lock:
                number = next(self._numbers, None)
            if number is None:
                return
            began = time.monotonic()
            try:
                how = self._call(number)
            except ChatPoolError as error:
                how = type(error).__name__
            except BaseException as error:
                how = "untyped"
                self.wrong.append((number, repr(error)))
            with self._lock:
                self.ended[how] += 1
                self.latest = max(self.latest, time.monotonic() - began - LIMITS.total)

    def _call(self, number):
        prompt = f"{SEED}-{number}"
        # A model that wants to be left alone costs forty calls at most.
        options = {"model": f"m{number // 40}", "retry": number % 3}
        if self._streamed:
            with self._pool.stream(prompt, **options) as stream:
                text = "".join(chunk.text for chunk in stream)
        else:
            text = self._pool.chat(prompt, **options).text
        if not belongs_to(text, prompt):
            self.wrong.append((number, text))
        return "answered" if text == text_for(prompt) else "answered, with the damage in the text"


@pytest.fixture
def attack(serve, authority, record_property):
    """``attack(count, tls, streamed)``: so many calls; how many sockets the pool has left open."""

    def run(count, tls, streamed):
        script = DamagingServer()
        server = serve(script, tls=tls)
        before = open_sockets()
        pool = ChatPool(
            "m",
            base_url=server.url,
            max_workers=CALLERS,
            timeout=LIMITS,
            verify=authority.file,
            max_response_bytes=200_000,
        )
        callers = Callers(pool, count, streamed)
        ends = time.monotonic() + HUNG + count * LIMITS.total / CALLERS
        for thread in callers.threads:
            thread.join(max(0.0, ends - time.monotonic()))
        hung = sum(thread.is_alive() for thread in callers.threads)
        pool.close()
        for peer in server.peers:
            peer.shut_down()
        # A thread of the server's may be about to take a connection that is closed already.
        while open_sockets() > before and time.monotonic() < ends + HUNG:
            time.sleep(0.01)
        left = open_sockets() - before
        kind = f"{'streams' if streamed else 'calls'}, {'TLS' if tls else 'plain'}, seed {SEED}"
        figures = {"exchanges": sum(script.sent.values()), **callers.ended}
        record_property(
            "counted",
            f"sockets ({kind}): {count} tried, {hung} hung, {len(callers.wrong)} wrong, {left} sockets left, {figures}",
        )
        assert not hung
        assert not callers.wrong
        assert callers.latest < HUNG
        assert callers.ended["answered"] > count / 4
        assert len(callers.ended) > 4
        return left

    return run


some = pytest.mark.parametrize("count", [150, pytest.param(5000, marks=pytest.mark.slow)])
plain_and_tls = pytest.mark.parametrize(
    "tls", [pytest.param(False, marks=pytest.mark.slow), True], ids=["plain", "tls"]
)


@some
@plain_and_tls
def test_every_call_ends_in_time_as_a_success_or_a_typed_error_and_leaves_no_socket(count, tls, attack):
    assert attack(count, tls, streamed=False) <= 0


@some
@plain_and_tls
@pytest.mark.slow
def test_so_does_every_stream(count, tls, attack):
    assert attack(count, tls, streamed=True) <= 0
