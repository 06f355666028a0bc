"""Answers as text, as bytes and in files: whole or not at all, bounded, and no error passes for an answer."""

from __future__ import annotations

import errno
import gzip
import os
import threading
import time
import tracemalloc

import pytest
import responses

from chatpool import (
    APIConnectionError,
    APIResponseError,
    ChatPool,
    ChatRequest,
    ConfigurationError,
    Endpoint,
    NotFoundError,
    RetryPolicy,
    Timeout,
)
from chatpool._files import NewFile

pytestmark = pytest.mark.faults

SOUND = bytes(range(256)) * 4000
RETRY = RetryPolicy(max_retries=3, wait_initial=0.01)


@pytest.fixture
def pool_for(serve):
    """``pool_for(*answers)``: a pool for a server that gives these answers, one to each request."""
    pools = []

    def make(*answers, **options):
        left, lock = list(answers), threading.Lock()

        def script(peer):
            while peer.read_request() is not None:
                with lock:
                    answer = left.pop(0)
                if not peer.send(answer) or b"Connection: close" in answer:
                    return

        options = {"retry": RETRY, "timeout": Timeout(total=120, attempt=60), **options}
        pools.append(ChatPool("m", base_url=f"{serve(script).url}/v1", api_key="sk-secret", **options))
        return pools[-1]

    yield make
    for pool in pools:
        pool.abort()


def answer(body, *headers, status="200 OK", length=None):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


CUT = answer(SOUND[:5000], "Connection: close", length=len(SOUND))


def wait_for(condition):
    ends_at = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.01)


def speak(pool, response):
    return pool.request("/audio/speech", {"input": "hello"}, response=response)


def test_an_answer_is_bytes_or_text_or_a_file(pool_for, tmp_path):
    pool = pool_for(
        answer(SOUND, "Content-Type: audio/mpeg"),
        answer("Zoë".encode("latin-1"), "Content-Type: text/plain; charset=latin-1"),
        answer(b"\xef\xbb\xbfZo\xc3\xab", "Content-Type: text/plain"),
        answer(b"Zo\xc3\xab", "Content-Type: text/plain; charset=nobody-knows"),
        answer(SOUND),
    )
    assert speak(pool, "bytes") == SOUND
    assert [pool.request("/audio/transcriptions", files={"file": b"RIFF"}, response="text") for _ in range(3)] == [
        "Zoë"
    ] * 3
    path = tmp_path / "hello.mp3"
    assert speak(pool, path) == path
    assert path.read_bytes() == SOUND


def test_json_may_be_had_as_it_came(pool_for, tmp_path):
    content = b'{"id": "file-1",  "object": "file"}\n'
    pool = pool_for(*[answer(content, "Content-Type: application/json")] * 2)
    assert pool.request("/files/file-1", method="GET", response="bytes") == content
    path = pool.request("/files/file-1", method="GET", response=tmp_path / "file.json")
    assert path.read_bytes() == content


def test_a_file_is_replaced_only_by_a_whole_answer(pool_for, tmp_path):
    path = tmp_path / "hello.mp3"
    path.write_bytes(b"of last week")
    os.chmod(path, 0o640)
    seen = []

    pool = pool_for(CUT, answer(b"{}", status="503 Busy"), answer(SOUND))
    pool.add_listener(lambda event: event.kind == "retrying" and seen.append(path.read_bytes()))
    speak(pool, path)
    assert seen == [b"of last week"] * 2
    assert path.read_bytes() == SOUND
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["hello.mp3"]


def test_an_answer_that_never_comes_whole_leaves_the_file_as_it_was(pool_for, tmp_path):
    path = tmp_path / "hello.mp3"
    path.write_bytes(b"of last week")
    with pytest.raises(APIConnectionError, match="broke off"):
        speak(pool_for(*[CUT] * 4), path)
    assert path.read_bytes() == b"of last week"
    assert os.listdir(tmp_path) == ["hello.mp3"]


def test_a_link_of_ones_own_stays_a_link(pool_for, tmp_path):
    (tmp_path / "target").write_bytes(b"before")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    speak(pool_for(answer(SOUND)), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == SOUND


@pytest.mark.parametrize("headers", [(), ("Content-Encoding: gzip",)], ids=["plain", "gzip"])
def test_the_longest_answer_holds_for_files_too(pool_for, tmp_path, headers):
    body = gzip.compress(b"\0" * 2_000_000) if headers else b"\0" * 2_000_000
    pool = pool_for(*[answer(body, *headers)] * 2, max_response_bytes=1_000_000)
    with pytest.raises(APIResponseError, match="max_response_bytes=1,000,000"):
        speak(pool, tmp_path / "long.mp3")
    assert os.listdir(tmp_path) == []


def test_a_compressed_answer_is_unpacked_on_its_way_to_the_file(pool_for, tmp_path):
    path = speak(pool_for(answer(gzip.compress(SOUND), "Content-Encoding: gzip")), tmp_path / "hello.mp3")
    assert path.read_bytes() == SOUND


def test_a_large_answer_is_never_in_memory(serve, tmp_path):
    piece, count = b"\0" * (1 << 20), 48

    def script(peer):
        while peer.read_request() is not None:
            peer.send(f"HTTP/1.1 200 OK\r\nContent-Length: {count * len(piece)}\r\n\r\n".encode())
            for _ in range(count):
                peer.send(piece)

    with ChatPool("m", base_url=f"{serve(script).url}/v1", api_key="sk-x") as pool:
        speak(pool, tmp_path / "first.mp3")
        tracemalloc.start()
        try:
            speak(pool, tmp_path / "large.mp3")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert (tmp_path / "large.mp3").stat().st_size == count * len(piece)
    assert peak < 8 * len(piece)


ERROR = b'{"error": {"message": "no such voice", "type": "invalid_request_error", "code": 404}}'


@pytest.mark.parametrize("form", ["bytes", "text", "file"])
def test_an_error_in_a_good_answer_is_an_error(pool_for, tmp_path, form):
    pool = pool_for(answer(ERROR, "Content-Type: application/json"))
    with pytest.raises(NotFoundError, match="no such voice"):
        speak(pool, tmp_path / "out" if form == "file" else form)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("form", ["bytes", "file"])
@pytest.mark.parametrize(
    "useless", [answer(b"<html>Log in to the hotel</html>", "Content-Type: text/html; charset=utf-8"), answer(b"")]
)
def test_a_page_and_nothing_at_all_are_no_sound(pool_for, tmp_path, form, useless):
    pool = pool_for(useless, answer(SOUND, "Content-Type: audio/mpeg"))
    found = speak(pool, tmp_path / "out" if form == "file" else form)
    assert (found if form == "bytes" else found.read_bytes()) == SOUND


def test_a_stored_file_may_be_empty_or_a_page(pool_for):
    page = b"<html></html>"
    pool = pool_for(answer(b""), answer(page, "Content-Type: text/html"))
    for expected in (b"", page):
        assert pool.request("/files/file-1/content", method="GET", response="bytes") == expected


def test_a_full_disk_ends_the_call_and_leaves_the_file_as_it_was(pool_for, tmp_path, monkeypatch):
    path = tmp_path / "hello.mp3"
    path.write_bytes(b"of last week")
    made = NewFile.__init__

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def close(self):
            self.file.close()

    def make(self, *args, **options):
        made(self, *args, **options)
        self.file = Full(self.file)

    monkeypatch.setattr(NewFile, "__init__", make)
    with pytest.raises(ConfigurationError, match=r"cannot write .*hello\.mp3: No space left on device") as caught:
        speak(pool_for(answer(SOUND)), path)
    assert caught.value.attempts == 1
    assert path.read_bytes() == b"of last week"
    assert os.listdir(tmp_path) == ["hello.mp3"]


def test_a_file_that_cannot_be_written_says_nothing_about_its_endpoint(serve, tmp_path):
    def script(peer):
        while peer.read_request() is not None:
            peer.answer(SOUND)

    endpoints = [Endpoint(serve(script).url + "/v1", api_key="sk-x", name=name) for name in ("one", "other")]
    with ChatPool("m", endpoints=endpoints) as pool:
        for _ in range(4):
            with pytest.raises(ConfigurationError, match="there is no folder") as caught:
                speak(pool, tmp_path / "no" / "hello.mp3")
            assert caught.value.attempts == 1, "the other endpoint could not write it either"
        assert speak(pool, "bytes") == SOUND


def test_of_two_calls_that_write_one_file_none_spoils_the_other(serve, tmp_path):
    path = tmp_path / "hello.mp3"
    begun, go_on = threading.Event(), threading.Event()

    def script(peer):
        peer.read_request()
        if begun.is_set():
            peer.answer(b"of the second")
            return
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nof the")
        begun.set()
        go_on.wait(60)
        peer.send(b" first")

    with ChatPool("m", base_url=f"{serve(script).url}/v1", api_key="sk-x") as pool:
        first = pool.submit(ChatRequest({"input": "hello"}, "/audio/speech", response=path))
        wait_for(lambda: begun.is_set() and (tmp_path / "hello.mp3.new").exists())
        speak(pool, path)
        go_on.set()
        with pytest.raises(ConfigurationError, match="another call is writing to it"):
            first.result(60)
    assert path.read_bytes() == b"of the second"
    assert os.listdir(tmp_path) == ["hello.mp3"]


def test_a_mock_of_requests_may_give_the_content(tmp_path):
    with responses.RequestsMock() as mock, ChatPool("m", base_url="http://localhost/v1", api_key="sk-x") as pool:
        mock.post("http://localhost/v1/audio/speech", body=SOUND)
        assert speak(pool, tmp_path / "hello.mp3").read_bytes() == SOUND


@pytest.mark.parametrize("form", ["xml", None, 3, b"bytes"])
def test_no_other_form_is_known(pool_for, form):
    with pytest.raises(TypeError, match="response must be 'json', 'text', 'bytes' or a path"):
        speak(pool_for(), form)


def test_a_file_that_cannot_be_is_refused_before_anything_is_sent(pool_for, tmp_path):
    pool = pool_for()
    for path, problem in ((tmp_path, "it is a folder"), (tmp_path / "no" / "x", "there is no folder")):
        with pytest.raises(ConfigurationError, match=problem):
            speak(pool, path)
