"""Whatever a server sends, a call ends with its value or a ChatPoolError: mutated answers, streams and heads.

An input is made of its number alone, so that one that fails can be tried again by itself.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import json
import pickle
import random
import zlib
from typing import Any, Callable, NamedTuple

import pytest

from chatpool import Budget, ChatPool, ChatPoolError, Limits, Timeout
from chatpool.batch import report

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("no_collection")]

USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, "prompt_tokens_details": {"cached_tokens": 1}}
TOOL = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
ERROR = {"error": {"message": "try again in 20 ms", "type": "tokens", "code": "rate_limit_exceeded", "param": None}}
OUTPUT = [
    {"type": "message", "content": [{"type": "output_text", "text": "pong"}]},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
]


def choice(**fields):
    return {"id": "x", "created": 1, "model": "m", "choices": [{"index": 0, **fields}]}


CHAT = {
    **choice(message={"role": "assistant", "content": "pong", "tool_calls": [TOOL]}, finish_reason="stop"),
    "usage": USAGE,
}
VECTORS = {"data": [{"index": place, "embedding": [0.5, 1.5]} for place in range(3)], "usage": USAGE}
RESPONSE = {"status": "completed", "output": OUTPUT, "usage": {"input_tokens": 5, "output_tokens": 2}}
CHUNKS = [
    choice(delta={"role": "assistant", "content": "po"}, logprobs={"content": []}),
    choice(delta={"content": "ng", "tool_calls": [TOOL]}),
    {**choice(delta={}, finish_reason="stop"), "usage": USAGE},
]
EVENTS = [
    {"type": "response.output_text.delta", "delta": "pong", "output_index": 0},
    {"type": "response.output_item.added", "output_index": 1, "item": OUTPUT[1]},
    {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": "{}"},
    {"type": "response.output_item.done", "output_index": 1, "item": OUTPUT[1]},
    {"type": "response.completed", "response": RESPONSE},
]

# JSON as text: much of it is nothing that json.dumps would write.
VALUES = [
    *("null", "true", "[]", "{}", '""', '"x"', "-1", "0", "1", "1.5", "1e400", "-1e400", "NaN", "1e308", "-0.0"),
    *(str(number) for number in (2**31, 2**32 - 1, 2**63, 2**64, 10**12, -(10**12), 10**300, 10**400, -(10**400))),
    *("9" * 4300, "9" * 4301, "-" + "9" * 20_000, '"' + "9" * 5000 + '"', '"1e400"', '"nan"', '"-1"'),
    *('{"a":' * depth + "1" + "}" * depth for depth in (50, 190, 250, 330, 900, 5000)),
    *("[" * depth + "]" * depth for depth in (190, 250, 900, 100_000)),
    *('"\\ud800"', '"\\u0000\\u001b[31m"', '"' + "x" * 100_000 + '"', "[[[", '"', "1.", "{]"),
]
NUMBERS = [
    "0",
    "-1",
    "1e400",
    "nan",
    "inf",
    "9" * 400,
    "9" * 5000,
    "1e-320",
    "1e308",
    "0x10",
    "٣",
    "",
    " ",
    "1, 2",
    "999:99:99",
    "1ns",
]
WAITS = [
    *NUMBERS,
    "Thu, 01 Jan 1970 00:00:00 GMT",
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "Mon, 99 Foo 99999 99:99:99",
    "99999-01-01",
]
HEADERS = {
    "content-type": ["application/json", "text/event-stream", "text/html", "", "\xff", "x" * 5000],
    "content-encoding": [
        "gzip",
        "deflate",
        "br",
        "zstd",
        "gzip, gzip",
        "gzip, " * 3000 + "gzip",
        "\xff",
        "identity, br",
    ],
    "content-length": NUMBERS,
    "transfer-encoding": ["chunked", "chunked, chunked", "gzip, chunked", "identity", "x"],
    "retry-after": WAITS,
    "retry-after-ms": NUMBERS,
    "date": WAITS,
    "location": ["/v1/elsewhere", "http://[", "http://h:99999999/", "//", "\\"],
    "x-request-id": ["x" * 5000, "\xff", ""],
    "x-ratelimit-limit-tokens": NUMBERS,
    "x-ratelimit-remaining-tokens": NUMBERS,
    "x-ratelimit-reset-tokens": WAITS,
    "x-ratelimit-limit-requests": NUMBERS,
    "x-ratelimit-remaining-requests": NUMBERS,
    "x-ratelimit-reset-requests": WAITS,
}
STATUSES = ["200 OK"] * 60 + ["400 Bad", "401 No", "403 No", "404 No", "429 Slow", "500 Bad", "503 Busy", "504 Late"]
STATUSES += [
    "204 Empty",
    "201 Made",
    "299 X",
    "300 X",
    "304 Same",
    "307 Go",
    "599 X",
    "600 X",
    "999 X",
    "099 X",
    "9" * 30,
    "",
]
MESSAGES = [
    "try again in {}s",
    "resets in {}:00:00",
    "resets in {0}.{0}:00:00, per day",
    "reset at {}-01-01 00:00:00",
    "wait {} days",
]


def nodes(value, at=()):
    """Every place in a JSON value."""
    yield at
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield from nodes(part, (*at, name))


class Mutation:
    """One input.

    Args:
        number: which.
    """

    def __init__(self, number):
        self.random = random.Random(number)
        self.call = self.random.choice(CALLS)
        self.answer = self._answer()

    def _answer(self):
        pick = self.random
        base = self.call.base
        if pick.random() < 0.15:
            message = pick.choice(MESSAGES).format(pick.choice(NUMBERS))
            base = {"error": {**ERROR["error"], "message": message}}
        if streams := isinstance(base, list):
            names = [part.get("type", "message").encode() for part in base]
            end = [b"data: [DONE]\n\n"] * (pick.random() < 0.8)
            events = [b"event: %s\ndata: %s\n\n" % (name, self._json(part)) for name, part in zip(names, base)]
            body = b"".join(events + end)
        else:
            body = self._json(base)
        if pick.random() < 0.2:
            body = self._damaged(body)
        return self._framed(body, streams)

    def _json(self, value):
        """A JSON value with some of its parts replaced, as bytes."""
        value, replaced = copy.deepcopy(value), {}
        for number in range(self.random.choice([0, 1, 1, 1, 2, 3])):
            value = value or {"more": 0}
            *way, last = self.random.choice([at for at in nodes(value) if at])
            holder = value
            for name in way:
                holder = holder[name]
            if self.random.random() < 0.1:
                del holder[last]
            else:
                holder[last] = f"@{number}@"
                replaced[f'"@{number}@"'] = self.random.choice(VALUES)
        text = json.dumps(value)
        for mark, fragment in replaced.items():
            text = text.replace(mark, fragment)
        return text.encode("utf-8", "surrogatepass")

    def _damaged(self, body):
        pick, at = self.random, self.random.randrange(len(body) + 1)
        return pick.choice(
            [
                body[:at],
                body[:at] + pick.randbytes(5) + body[at:],
                body[:at] + body[at + 3 :],
                body[:at] + b"\n\n" + body[at:],
                body + body,
                body.replace(b"\n\n", b"\r\r"),
                b"\xef\xbb\xbf" + body,
                body.decode("utf-8", "replace").encode("utf-16"),
            ]
        )

    def _framed(self, body, streams):
        pick = self.random
        fields = {"content-type": "text/event-stream" if streams else "application/json"}
        if pick.random() < 0.3:
            packed = pick.choice(
                [gzip.compress, zlib.compress, lambda data: gzip.compress(gzip.compress(data)), bytes]
            )(body)
            fields["content-encoding"], body = pick.choice(["gzip", "deflate", "gzip, gzip", "br", "zstd"]), packed
        for name in pick.sample(sorted(HEADERS), pick.choice([0, 0, 0, 1, 3])):
            fields[name] = pick.choice(HEADERS[name])
        if fields.get("transfer-encoding") == "chunked" or pick.random() < 0.3:
            fields["transfer-encoding"] = "chunked"
            size = pick.choice([b"%x" % len(body)] * 6 + [b"f" * 400, b"-5", b"5;" + b"x" * 70_000, b"", b"\xff", b"0"])
            body = size + b"\r\n" + body + b"\r\n0\r\n" + pick.choice([b"\r\n", b"X-A: b\r\n\r\n", b""])
        elif pick.random() < 0.7:
            fields.setdefault("content-length", str(len(body)))
        status = pick.choice(["HTTP/1.1"] * 60 + ["HTTP/1.0", "HTTP/9.9", "x"]) + " " + pick.choice(STATUSES)
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        interim = pick.choice([b""] * 9 + [b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n"])
        return interim + f"{status}\r\n{head}\r\n".encode() + body


class Call(NamedTuple):
    """A kind of call.

    Attributes:
        make: makes it, with a pool, a model of its own and a file for a journal.
        base: the JSON that is mutated; of a stream a list, one for each event.
    """

    make: Callable[[ChatPool, str, str], Any]
    base: Any


def read(stream):
    with stream:
        return [chunk.text for chunk in stream], stream.completion


def journalled(pool, model, path):
    outcomes = pool.map(["ping"], model=model, journal=path, progress=False).outcomes
    report(path).text()
    return outcomes + pool.map(["ping"], model=model, journal=path, progress=False).outcomes


CALLS = [
    Call(lambda pool, model, path: pool.chat("ping", model=model), CHAT),
    Call(lambda pool, model, path: pool.chat("ping", model=model, parse=dict, max_reasks=0), CHAT),
    Call(lambda pool, model, path: journalled(pool, model, path), CHAT),
    Call(lambda pool, model, path: pool.responses("ping", model=model), RESPONSE),
    Call(lambda pool, model, path: pool.embed("ping", model=model), VECTORS),
    Call(lambda pool, model, path: pool.embed(["a", "b", "c"], model=model, progress=False).outcomes, VECTORS),
    Call(lambda pool, model, path: pool.request("/moderations", {"input": "x", "model": model}), {"results": [CHAT]}),
    Call(lambda pool, model, path: pool.request("/models", method="GET"), {"data": [{"id": "m"}]}),
    Call(lambda pool, model, path: read(pool.stream("ping", model=model)), CHUNKS),
    Call(lambda pool, model, path: pool.chat("ping", model=model, collect_stream=True), CHUNKS),
    Call(lambda pool, model, path: pool.chat("ping", model=model), CHUNKS),
    Call(lambda pool, model, path: list(pool.stream_many(["a"], model=model, progress=False)), CHUNKS),
    Call(lambda pool, model, path: read(pool.stream({"input": "ping", "model": model})), EVENTS),
]

# Not from a server, and not told by any name of ours: something was raised that nobody had thought of.
UNTYPED = ("internal error", "unexpected exception")


def trouble_of(result):
    """What is wrong with what came of a call, None for nothing: errors can be shown and pickled, values used."""
    for one in result if isinstance(result, list) else [result]:
        error = one if isinstance(one, BaseException) else getattr(one, "error", None)
        if error is not None and (not isinstance(error, ChatPoolError) or any(word in str(error) for word in UNTYPED)):
            return repr(error)
        pickle.loads(pickle.dumps(one))
        value = getattr(one, "value", one)
        json.dumps(getattr(value, "raw", None))
        repr((str(one), one))
    return None


def try_out(numbers, serve, tmp_path):
    """Make the calls of these inputs; returns what was wrong, by the number of the input."""
    answers = {}

    def script(peer):
        request = peer.read_request()
        if request is not None:
            peer.send(answers["next"])

    server = serve(script)
    wrong = {}
    options = [{}, {"limits": Limits(tokens_per_minute=10**6)}, {"budget": Budget(tokens=10**15)}]
    with contextlib.ExitStack() as stack:
        pools = [
            stack.enter_context(
                ChatPool(
                    "m",
                    base_url=f"{server.url}/v1",
                    api_key="k",
                    max_workers=1,
                    retry=0,
                    max_response_bytes=10**6,
                    **more,
                )
            )
            for more in options
        ]
        for number in numbers:
            mutation, pool = Mutation(number), pools[number % 3].with_options(timeout=Timeout(attempt=5, total=6))
            answers["next"] = mutation.answer
            # A line of its own: what a server states of limits holds up the next call to the same model.
            trouble = _outcome(mutation.call, pool, f"m{number}", tmp_path / f"{number}.journal")
            if trouble is None and number % 8 == 0:
                again = pool.with_options(timeout=Timeout(total=0.05))
                trouble = _outcome(mutation.call, again, f"m{number}", tmp_path / f"{number}.again")
                str(pool.stats())
            if trouble is not None:
                wrong[number] = trouble
    return wrong


def _outcome(call, pool, model, path):
    try:
        try:
            return trouble_of(call.make(pool, model, str(path)))
        except ChatPoolError as error:
            return trouble_of(error)
    except Exception as error:
        return f"raised {error!r}"


def test_nothing_but_our_own_errors_comes_of_mutated_answers(serve, tmp_path):
    assert try_out(range(150), serve, tmp_path) == {}


@pytest.mark.slow
def test_nothing_but_our_own_errors_comes_of_very_many(serve, tmp_path, capsys):
    numbers = range(1000, 11_000)
    wrong = try_out(numbers, serve, tmp_path)
    with capsys.disabled():
        print(f"\ntried {len(numbers):,}, raised something untyped {len(wrong):,}")
    assert wrong == {}
