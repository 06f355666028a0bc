"""Files in requests: sent whole at every attempt, streamed from the disk, and in time, whatever the server does."""

from __future__ import annotations

import email.policy
import io
import os
import re
import threading
import tracemalloc
from concurrent.futures import CancelledError
from email.parser import BytesParser

import pytest
import responses

from chatpool import (
    APIStatusError,
    APITimeoutError,
    ChatPool,
    ChatRequest,
    ConfigurationError,
    Endpoint,
    RetryPolicy,
    Timeout,
)

pytestmark = pytest.mark.faults

SOUND = bytes(range(256)) * 40_000  # 10 MB: more than the buffers of a connection hold
GOOD = b'{"id": "file-1", "text": "hello"}'
RETRY = RetryPolicy(max_retries=3, wait_initial=0.01)


@pytest.fixture
def sound(tmp_path):
    path = tmp_path / "sound.wav"
    path.write_bytes(SOUND)
    return path


@pytest.fixture
def pool_for():
    """``pool_for(server, **options)``: a pool for a scripted server, given up after the test."""
    pools = []

    def make(server, **options):
        options = {"retry": RETRY, "timeout": Timeout(total=120, attempt=60), **options}
        if "endpoints" not in options:
            options = {"api_key": "sk-secret", "base_url": f"{server.url}/v1", **options}
        pools.append(ChatPool("m", **options))
        return pools[-1]

    yield make
    for pool in pools:
        pool.abort()


class Uploads:
    """A script that answers uploads, one after the other, as it is told, and keeps them.

    Args:
        answers: what to do with the first, second ... request: a function of the peer, or None for a good answer.
    """

    def __init__(self, *answers):
        self.answers = list(answers)
        self.received = []
        self.lock = threading.Lock()

    def __call__(self, peer):
        while True:
            with self.lock:
                step = self.answers.pop(0) if self.answers else None
            if getattr(step, "is_before_the_body", False):
                step(peer)
                return
            request = peer.read_request()
            if request is None:
                return
            self.received.append(request)
            if step is None:
                peer.answer(GOOD)
            elif step(peer) == "close":
                return

    @property
    def forms(self):
        return [form_of(*request) for request in self.received]


def form_of(head, body):
    """The parts of a form: name, filename, content type, content."""
    content_type = re.search(rb"content-type: (multipart/form-data[^\r]*)", head, re.IGNORECASE)[1]
    message = BytesParser(policy=email.policy.HTTP).parsebytes(b"Content-Type: " + content_type + b"\r\n\r\n" + body)
    return [
        (
            part.get_param("name", header="content-disposition"),
            part.get_filename(),
            part.get_content_type() if part.get_filename() else None,
            part.get_payload(decode=True),
        )
        for part in message.get_payload()
    ]


def hang(peer):
    peer.hang()


def unread(action):
    """A step that does not wait for the whole request."""
    action.is_before_the_body = True
    return action


def test_a_form_has_the_fields_and_the_files(serve, pool_for, sound):
    script = Uploads()
    pool = pool_for(serve(script))
    body = {"model": "whisper-1", "temperature": 0.5, "prompt": 'Zoë "says"\n', "stream": False, "language": None}
    body.update(timestamp_granularities=["word", "segment"], chunking_strategy={"type": "server_vad"})
    files = [("file", sound), ("image[]", ('Zoë\'s "é".png', b"\x89PNG")), ("image[]", ("b", io.BytesIO(b"b"), "a/b"))]
    assert pool.request("/audio/transcriptions", body, files=files) == {"id": "file-1", "text": "hello"}
    assert script.forms[0] == [
        ("model", None, None, b"whisper-1"),
        ("temperature", None, None, b"0.5"),
        ("prompt", None, None, 'Zoë "says"\n'.encode()),
        ("stream", None, None, b"false"),
        ("timestamp_granularities[]", None, None, b"word"),
        ("timestamp_granularities[]", None, None, b"segment"),
        ("chunking_strategy[type]", None, None, b"server_vad"),
        ("file", "sound.wav", "audio/x-wav", SOUND),
        ("image[]", "Zoë's %22é%22.png", "image/png", b"\x89PNG"),
        ("image[]", "b", "a/b", b"b"),
    ]


@pytest.mark.parametrize(
    "part", [b"RIFF" * 10, io.BytesIO(b"RIFF" * 10), ("a.wav", b"RIFF" * 10)], ids=["bytes", "file", "tuple"]
)
def test_a_small_form_is_sent_whole_again_after_a_failure(serve, pool_for, part):
    script = Uploads(lambda peer: peer.answer(b"{}", status="503 Busy"), lambda peer: peer.reset() or "close")
    pool_for(serve(script)).request("/files", files={"file": part})
    assert [form[0][3] for form in script.forms] == [b"RIFF" * 10] * 3


def test_a_file_object_is_sent_from_its_beginning(serve, pool_for):
    script = Uploads()
    file = io.BytesIO()
    file.write(b"written, and not rewound")
    pool = pool_for(serve(script))
    for _ in range(2):
        pool.request("/files", files={"file": file})
    assert [form[0][3] for form in script.forms] == [b"written, and not rewound"] * 2


@pytest.mark.slow
def test_a_large_file_is_sent_whole_again_after_a_failure(serve, pool_for, sound):
    @unread
    def break_in_the_middle(peer):
        while len(peer.received) < 3_000_000:
            peer.read()
        peer.reset()

    script = Uploads(break_in_the_middle, lambda peer: peer.answer(b"{}", status="500 Oops"))
    pool_for(serve(script)).request("/files", {"purpose": "batch"}, files={"file": sound})
    assert [form[1][3] == SOUND for form in script.forms] == [True, True]


@pytest.mark.slow
def test_a_large_file_follows_a_redirect(serve, pool_for, sound):
    script = Uploads(lambda peer: peer.answer(b"", status="307 There", headers=["Location: /v1/elsewhere"]))
    pool_for(serve(script)).request("/files", files={"file": sound})
    assert [form[0][3] == SOUND for form in script.forms] == [True, True]
    assert script.received[1][0].startswith(b"POST /v1/elsewhere ")


def test_a_connection_that_was_closed_while_idle_costs_no_attempt(serve, pool_for, sound):
    closed = threading.Event()

    def close_after(peer):
        peer.answer(GOOD)
        peer.shut_down()
        closed.set()
        return "close"

    script = Uploads(close_after)
    pool = pool_for(serve(script), retry=0)
    pool.request("/files", files={"file": b"first"})
    assert closed.wait(60)
    pool.request("/files", files={"file": sound})
    assert script.forms[-1][0][3] == SOUND


def test_an_early_refusal_is_read_although_the_file_is_not(serve, pool_for, sound):
    @unread
    def refuse(peer):
        peer.read()
        peer.answer(
            b'{"error": {"message": "too large"}}', status="413 Content Too Large", headers=["Connection: close"]
        )

    script = Uploads(refuse)
    server = serve(script)
    with pytest.raises(APIStatusError, match="too large") as caught:
        pool_for(server).request("/files", files={"file": sound})
    assert (caught.value.status_code, caught.value.attempts) == (413, 1)


def test_a_server_that_never_reads_costs_no_more_than_the_attempt(serve, pool_for, sound):
    pool = pool_for(serve(hang), timeout=Timeout(total=60, attempt=0.5), retry=0)
    with pytest.raises(APITimeoutError, match="timed out") as caught:
        pool.request("/files", files={"file": sound})
    assert "Timeout.attempt" in str(caught.value.__cause__)


def test_a_cancelled_upload_ends_at_once(serve, pool_for, sound):
    reading = threading.Event()

    def script(peer):
        peer.read()
        reading.set()
        peer.hang()

    pool = pool_for(serve(script))
    future = pool.submit(ChatRequest({}, "/files", files={"file": sound}))
    assert reading.wait(60)
    assert future.cancel()
    with pytest.raises(CancelledError):
        future.result(60)
    pool.close()  # waits for the worker


def test_a_file_that_goes_away_between_two_attempts_ends_the_call(serve, pool_for, sound):
    def remove(peer):
        os.unlink(sound)
        peer.answer(b"{}", status="503 Busy")

    script = Uploads(remove)
    with pytest.raises(ConfigurationError, match=f"cannot read {re.escape(str(sound))}: No such file"):
        pool_for(serve(script)).request("/files", files={"file": sound})
    assert len(script.received) == 1


def test_a_file_that_becomes_shorter_while_it_is_sent_ends_the_call(serve, pool_for, sound):
    @unread
    def truncate(peer):
        peer.read()
        os.truncate(sound, 100)
        while peer.read():
            pass

    script = Uploads(truncate)
    with pytest.raises(ConfigurationError, match="has become shorter"):
        pool_for(serve(script)).request("/files", files={"file": sound})
    assert script.received == []


def test_a_large_file_is_never_in_memory(serve, pool_for, tmp_path):
    path = tmp_path / "large.bin"
    with open(path, "wb") as file:
        file.truncate(64 * 1024 * 1024)
    read = []

    def script(peer):
        while not peer.received.endswith(b"--\r\n"):
            data = peer.sock.recv(1 << 20)
            peer.received = (peer.received + data)[-100:]
            read.append(len(data))
        peer.answer(GOOD)

    pool = pool_for(serve(script))
    pool.request("/files", files={"file": b"the first request imports what it needs"})
    tracemalloc.start()
    try:
        pool.request("/files", files={"file": path})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(read) > 64 * 1024 * 1024
    assert peak < 8 * 1024 * 1024


def test_each_endpoint_gets_the_name_that_the_model_has_there(serve, pool_for):
    script = Uploads()
    server = serve(script)
    endpoints = [Endpoint(f"{server.url}/v1", api_key="sk-secret", model={"whisper": "our-whisper"})]
    pool_for(server, endpoints=endpoints).request(
        "/audio/transcriptions", {"model": "whisper"}, files={"file": b"RIFF"}
    )
    assert script.forms[0][0] == ("model", None, None, b"our-whisper")


def test_what_signs_requests_sees_the_whole_form(serve, pool_for, sound):
    signed = []

    def sign(request):
        signed.append(request.body)
        return request

    pool_for(serve(Uploads()), api_key=None, auth=sign).request("/files", files={"file": sound})
    assert SOUND in signed[0]


def test_a_mock_of_requests_sees_a_form_that_it_can_read():
    with responses.RequestsMock() as mock, ChatPool("m", base_url="http://localhost/v1", api_key="sk-x") as pool:
        matcher = responses.matchers.multipart_matcher(
            {"file": ("a.txt", b"hello", "text/plain")}, {"purpose": "batch"}
        )
        mock.post("http://localhost/v1/files", json={"id": "file-1"}, match=[matcher])
        body, files = {"purpose": "batch"}, {"file": ("a.txt", b"hello")}
        assert pool.request("/files", body, files=files) == {"id": "file-1"}


@pytest.mark.parametrize(
    ("files", "kind", "message"),
    [
        ({"file": "sound.wav"}, TypeError, "'file' could be a path or a content: pass a path"),
        ({"file": 3}, TypeError, "'file' is a int: pass a path"),
        ({"file": ("a.wav", b"", "audio/wav", {})}, TypeError, r"a tuple must be \(filename, content"),
        ({"file": io.StringIO("text")}, TypeError, "open it in binary mode"),
        (["sound.wav"], TypeError, "files must be a dict of field names and parts"),
        (b"RIFF", TypeError, "files must be a dict of field names and parts, .* got a bytes$"),
        (3, TypeError, "files must be a dict of field names and parts, .* got a int$"),
    ],
)
def test_what_is_no_file_is_refused_before_anything_is_sent(serve, pool_for, files, kind, message):
    script = Uploads()
    with pytest.raises(kind, match=message):
        pool_for(serve(script)).request("/files", files=files)
    assert script.received == []


def test_what_is_no_regular_file_is_refused_without_waiting_for_it(serve, pool_for, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    pool = pool_for(serve(Uploads()))
    for path, message in (
        (tmp_path / "pipe", "no regular file"),
        (tmp_path, "it is a folder"),
        (tmp_path / "no", "No such"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            pool.request("/files", files={"file": path})
