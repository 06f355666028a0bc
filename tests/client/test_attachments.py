"""Files, bytes and URLs beside text: sent, sent again, kept in journals, shared, pickled."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import pickle
import struct
import threading
import tracemalloc
import wave
import zlib

import pytest

import chatpool
from chatpool import Budget, BudgetExceededError, ChatPool, ConfigurationError, Endpoint, attach
from chatpool.testing import Answer, Error, FakeServer, MemoryPool, Stream


def png(seed=0, size=4):
    """A picture that every viewer shows."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    pixels = zlib.compress(b"".join(b"\0" + bytes([seed % 256, row, 9] * size) for row in range(size)))
    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def wav():
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(1600))
    return data.getvalue()


@pytest.fixture
def pictures(tmp_path):
    """``pictures(n)``: the paths of ``n`` pictures that differ."""

    def make(count):
        paths = [tmp_path / f"{number}.png" for number in range(count)]
        for number, path in enumerate(paths):
            path.write_bytes(png(number))
        return paths

    return make


def describe(path):
    return ["Describe it.", attach(path)]


def picture_in(body):
    """The first picture of a body, decoded."""
    parts = body["messages"][-1]["content"] if "messages" in body else body["input"][-1]["content"]
    url = next(part["image_url"] for part in parts if "image_url" in part)
    return base64.b64decode((url if isinstance(url, str) else url["url"]).partition(",")[2])


class TestCalls:
    def test_each_method_sends_them(self, serve, pictures):
        server, pool = serve()
        [path] = pictures(1)
        item, content = describe(path), path.read_bytes()
        assert pool.chat(item).text == "Describe it."  # the last user message, as ever
        pool.submit(item).result()
        list(pool.stream(item))
        pool.responses(item)
        pool.map([path], prompt=describe)
        pool.map([item])
        list(pool.imap([item], collect_stream=True))
        pool.request("/chat/completions", {"messages": [{"role": "user", "content": item}]})
        assert [picture_in(request.body) for request in server.requests] == [content] * 8

    def test_sound_and_a_text_file(self, serve, tmp_path):
        server, pool = serve()
        (tmp_path / "notes.md").write_text("# Ä", encoding="utf-8")
        pool.chat(["Answer.", attach(wav()), attach(tmp_path / "notes.md")])
        _, sound, text = server.requests[0].body["messages"][0]["content"]
        assert sound["input_audio"] == {"data": base64.b64encode(wav()).decode(), "format": "wav"}
        assert text == {"type": "text", "text": "# Ä"}

    def test_a_large_one_goes_through_a_socket_whole(self, serve, tmp_path):
        server, pool = serve(Error(503), Answer("good"))
        path = tmp_path / "large.png"
        path.write_bytes(png() + os.urandom(3_000_000))
        assert pool.chat(describe(path)).text == "good"
        assert [picture_in(request.body) == path.read_bytes() for request in server.requests] == [True, True]
        assert server.requests[0].headers["content-type"] == "application/json"

    def test_each_attempt_reads_the_file(self, serve, pictures):
        [path] = pictures(1)
        contents = [path.read_bytes()]

        def change(event):
            if event.kind == "retrying":
                contents.append(png(len(contents)))
                path.write_bytes(contents[-1])

        server, pool = serve(Error(503), Error(503), Answer("good"), listeners=[change])
        assert pool.chat(describe(path)).text == "good"
        assert [picture_in(request.body) for request in server.requests] == contents
        assert len(contents) == 3

    def test_every_signer_gets_the_whole_body(self, tmp_path):
        path, signed = tmp_path / "large.png", []
        path.write_bytes(png() + os.urandom(2_000_000))

        def sign(request):
            signed.append(request.body)
            return request

        with FakeServer() as server, ChatPool("m", base_url=server.base_url, auth=sign) as pool:
            pool.chat(describe(path))
        assert picture_in(json.loads(signed[0])) == path.read_bytes()

    def test_a_memory_pool_has_them_in_its_outbox(self, tmp_path):
        path = tmp_path / "large.png"
        path.write_bytes(png() + os.urandom(2_000_000))
        with MemoryPool(replies={"Describe it.": "a cat"}) as pool:
            assert pool.chat(describe(path)).text == "a cat"
            assert picture_in(pool.outbox[0]) == path.read_bytes()


class TestUnreadable:
    def test_a_missing_file_ends_its_call_before_anything_is_sent(self, serve):
        server, pool = serve()
        for call in (pool.chat, pool.responses, pool.submit):
            with pytest.raises(ConfigurationError, match=r"the attachment /none/a\.png cannot be read: No such file"):
                call(describe("/none/a.png"))
        assert not server.requests

    def test_in_a_run_only_its_item_fails(self, serve, pictures):
        server, pool = serve()
        paths = pictures(3)
        paths[1].unlink()
        results = pool.map(paths, prompt=describe)
        assert [outcome.ok for outcome in results.outcomes] == [True, False, True]
        assert "1.png cannot be read" in str(results.errors[1])
        assert results.fatal is None
        assert len(server.requests) == 2

    def test_one_that_is_gone_before_a_retry_ends_its_call(self, serve, pictures):
        server, pool = serve(Error(503), listeners=[lambda event: event.kind == "retrying" and path.unlink()])
        [path] = pictures(1)
        with pytest.raises(ConfigurationError, match=r"0\.png cannot be read") as raised:
            pool.chat(describe(path))
        assert raised.value.attempts == 2
        assert len(server.requests) == 1

    def test_it_says_nothing_about_the_endpoint(self, pictures):
        """The others of the run go on, with the same endpoint, where there are several."""
        paths, first = pictures(6), threading.Event()

        def unlink(event):
            if event.kind == "sent" and not first.is_set():
                first.set()
                paths[0].unlink()

        with FakeServer() as one, FakeServer() as two:
            endpoints = [Endpoint(one.base_url, name="one"), Endpoint(two.base_url, name="two")]
            with ChatPool("m", endpoints=endpoints, max_workers=1, listeners=[unlink]) as pool:
                results = pool.map(paths, prompt=describe)
                lines = pool.stats().lines
        assert [outcome.ok for outcome in results.outcomes] == [False, True, True, True, True, True]
        assert isinstance(results.errors[0], ConfigurationError)
        assert [line.why for line in lines.values()] == [None] * len(lines)

    def test_failover_sends_it_to_the_next_endpoint(self, pictures):
        [path] = pictures(1)
        with FakeServer(lambda request: Error(503)) as one, FakeServer() as two:
            endpoints = [
                Endpoint(one.base_url, name="one", weight=100),
                Endpoint(two.base_url, name="two", model="other"),
            ]
            with ChatPool("m", endpoints=endpoints) as pool:
                assert pool.chat(describe(path)).text == "Describe it."
        assert two.requests[0].body["model"] == "other"
        assert picture_in(two.requests[0].body) == path.read_bytes()


def test_the_memory_of_queued_calls_is_small(tmp_path):
    """200 calls wait for a worker, each with a picture of 5 MB."""
    path = tmp_path / "large.png"
    with open(path, "wb") as file:
        file.write(png())
        file.truncate(5_000_000)
    arrived, go_on = threading.Event(), threading.Event()

    def hold(request):
        arrived.set()
        go_on.wait(60)
        return Error(400)

    with FakeServer(hold) as server, ChatPool("m", base_url=server.base_url, max_workers=1) as pool:
        tracemalloc.start()
        try:
            futures = [pool.submit([f"question {number}", attach(path)]) for number in range(200)]
            assert arrived.wait(60)
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        for future in futures:
            future.cancel()
        go_on.set()
    assert held < 20_000_000 + 2 * 6_700_000  # one body and its decoded form are in the server of this process


class TestJournals:
    def journalled(self, pool, paths, journal, **options):
        return pool.map(paths, prompt=describe, journal=journal, **options)

    def test_what_is_done_is_not_sent_again(self, serve, pictures, tmp_path):
        server, pool = serve()
        paths = pictures(3)
        self.journalled(pool, paths, tmp_path / "j")
        again = self.journalled(pool, paths, tmp_path / "j")
        assert len(server.requests) == 3
        assert again.texts == ["Describe it."] * 3

    def test_a_changed_file_is_sent_again(self, serve, pictures, tmp_path):
        server, pool = serve()
        paths = pictures(3)
        self.journalled(pool, paths, tmp_path / "j")
        paths[1].write_bytes(png(77))
        self.journalled(pool, paths, tmp_path / "j")
        assert picture_in(server.requests[3].body) == png(77)
        assert len(server.requests) == 4

    def test_the_same_picture_under_another_name_is_the_same_question(self, serve, pictures, tmp_path):
        server, pool = serve()
        paths = pictures(2)
        self.journalled(pool, paths, tmp_path / "j")
        moved = [path.rename(tmp_path / f"moved-{path.name}") for path in paths]
        self.journalled(pool, moved, tmp_path / "j")
        assert len(server.requests) == 2

    def test_an_answer_belongs_to_the_content_that_was_looked_up(self, pictures, tmp_path):
        """A file that changes while its answer is on its way is asked about again."""
        [path] = pictures(1)

        def change(request):
            path.write_bytes(png(len(server.requests) + 5))
            return Answer("about the old one")

        with FakeServer([change]) as server, ChatPool("m", base_url=server.base_url) as pool:
            self.journalled(pool, [path], tmp_path / "j")
            self.journalled(pool, [path], tmp_path / "j")
            self.journalled(pool, [path], tmp_path / "j")
        assert len(server.requests) == 2

    def test_a_file_that_goes_away_meanwhile_loses_no_answer(self, pictures, tmp_path):
        [path] = pictures(1)
        content = path.read_bytes()

        def remove(request):
            path.unlink()
            return Answer("good")

        with FakeServer([remove]) as server, ChatPool("m", base_url=server.base_url) as pool:
            self.journalled(pool, [path], tmp_path / "j")
            path.write_bytes(content)
            assert self.journalled(pool, [path], tmp_path / "j").texts == ["good"]
        assert len(server.requests) == 1

    def test_nothing_of_the_content_is_written(self, serve, tmp_path, caplog):
        _, pool = serve()
        caplog.set_level(logging.DEBUG)
        secret = b"s3cret words of a file"
        url = "https://example.invalid/a.png?sig=s3cret"
        item = ["Sum up.", attach(secret, type="text/plain"), attach(secret, type="image/png"), attach(url)]
        assert pool.map([item], journal=tmp_path / "j")[0].text.startswith("Sum up.")  # the fake says the text again
        pool.map([["A", attach(b"\0", type="image/png")]], journal=tmp_path / "k")
        journal = (tmp_path / "j").read_bytes()
        for part in (base64.b64encode(secret)[:-4], b"sig="):
            assert part not in journal
            assert part.decode() not in caplog.text

    def test_a_retry_of_failed_ones_goes_into_it(self, pictures, tmp_path):
        paths = pictures(2)
        with FakeServer([Error(400), Error(400)]) as server, ChatPool("m", base_url=server.base_url) as pool:
            results = self.journalled(pool, paths, tmp_path / "j", max_failures=None)
            again = pool.retry(results)
            assert again.texts == ["Describe it."] * 2
            assert self.journalled(pool, paths, tmp_path / "j").texts == ["Describe it."] * 2
        assert len(server.requests) == 4
        assert picture_in(server.requests[2].body) in [path.read_bytes() for path in paths]


class TestKeptRequests:
    def test_outcomes_keep_references_and_can_be_pickled(self, serve, tmp_path):
        _, pool = serve()
        path = tmp_path / "large.png"
        path.write_bytes(png() + bytes(1_000_000))
        results = pool.map([path], prompt=describe)
        pickled = pickle.dumps(results)
        assert len(pickled) < 10_000
        again = pickle.loads(pickled)
        assert again.outcomes[0].request == results.outcomes[0].request
        assert "large.png" in repr(again.outcomes[0].request)
        assert pool.chat(again.outcomes[0].request).text == "Describe it."

    def test_a_notebook_shows_what_was_asked(self, serve, pictures):
        _, pool = serve()
        assert "Describe it. [image_url]" in pool.map(pictures(1), prompt=describe)._repr_html_()

    def test_identical_ones_are_sent_once(self, serve, pictures, tmp_path):
        server, pool = serve(max_workers=1)
        one, two = pictures(2)
        copy = tmp_path / "copy.png"
        copy.write_bytes(one.read_bytes())
        results = pool.map([one, copy, two, one], prompt=describe, dedupe=True)
        assert results.texts == ["Describe it."] * 4
        assert len(server.requests) == 2

    def test_a_reask_has_the_picture_too(self, serve, pictures):
        [path] = pictures(1)
        server, pool = serve(Answer("no JSON"), Answer('{"animal": "cat"}'))
        reply = pool.chat(describe(path), parse=json.loads)
        assert reply.parsed == {"animal": "cat"}
        first, second = (request.body["messages"] for request in server.requests)
        assert second[: len(first)] == first
        assert len(second) == len(first) + 2

    def test_a_stream_whose_usage_is_refused_is_sent_again(self, pictures):
        [path] = pictures(1)
        refusal = Error(400, message="unknown field", param="stream_options")
        with FakeServer([refusal, Stream(["good"])]) as server, ChatPool("m", base_url=server.base_url) as pool:
            assert "".join(chunk.text for chunk in pool.stream(describe(path))) == "good"
        assert [picture_in(request.body) for request in server.requests] == [path.read_bytes()] * 2


def test_a_budget_counts_an_image_as_if_it_was_written_out(pictures):
    with FakeServer() as server, ChatPool("m", base_url=server.base_url, budget=Budget(tokens=700)) as pool:
        with pytest.raises(BudgetExceededError):
            pool.chat(describe(pictures(1)[0]))
        pool.chat(["Describe it.", attach(pictures(1)[0], detail="low")], max_tokens=10)
    assert len(server.requests) == 1


def test_the_one_shot_form_takes_them(pictures):
    with FakeServer() as server:
        assert (
            chatpool.map(pictures(2), model="m", base_url=server.base_url, prompt=describe).texts
            == ["Describe it."] * 2
        )
