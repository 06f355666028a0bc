"""Bodies with attachments: what is read while they are sent is what was asked for."""

from __future__ import annotations

import base64
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpool import ConfigurationError, attach
from chatpool._transport import payload_of
from chatpool._transport.request_body import _Base64
from chatpool._values import FileFault
from chatpool._wire import to_request
from chatpool._wire.attachments import AttachedContent

LARGE = b"\x89PNG\r\n\x1a\n" + os.urandom(2_000_001)


@given(st.binary(min_size=1, max_size=50), st.data())
def test_any_part_of_the_base64_can_be_read(data, draws):
    encoded = base64.b64encode(data)
    piece = _Base64(AttachedContent.of(attach(data)))
    assert len(piece) == len(encoded)
    offset = draws.draw(st.integers(0, len(encoded) - 1))
    size = draws.draw(st.integers(1, len(encoded) - offset))
    assert piece.at(offset, size) == encoded[offset : offset + size]


@pytest.fixture
def large(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(LARGE)
    return path


def image_in(body):
    return json.loads(body)["messages"][0]["content"][1]["image_url"]["url"]


def test_a_large_one_is_read_piece_by_piece_and_again_after_a_rewind(large):
    with payload_of(to_request(["a", attach(large)])).opened() as body:
        for size in (1000, 65_536, 4_000_000):
            pieces = list(iter(lambda: body.read(size), b""))  # noqa: B023 - called at once
            whole = b"".join(pieces)
            assert max(map(len, pieces)) <= size
            assert len(whole) == len(body)
            assert image_in(whole) == f"data:image/png;base64,{base64.b64encode(LARGE).decode()}"
            body.rewind()


def test_a_small_one_is_bytes(tmp_path):
    (tmp_path / "a.png").write_bytes(LARGE[:1000])
    with payload_of(to_request(["a", attach(tmp_path / "a.png")])).opened() as body:
        assert image_in(body).endswith(base64.b64encode(LARGE[:1000]).decode())


def test_it_is_read_anew_each_time(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(LARGE[:1000])
    payload = payload_of(to_request(["a", attach(path)]))
    path.write_bytes(LARGE[:2000])
    with payload.opened() as body:
        assert image_in(body).endswith(base64.b64encode(LARGE[:2000]).decode())


def test_one_that_becomes_shorter_is_refused(large):
    with payload_of(to_request(["a", attach(large)])).opened() as body:
        body.read(1000)
        large.write_bytes(LARGE[:1_000_000])
        with pytest.raises(FileFault) as raised:
            while body.read(65_536):
                pass
    assert isinstance(raised.value.error, ConfigurationError)
    assert "large.png has become shorter while it was sent" in str(raised.value.error)


def test_files_are_closed(large):
    with payload_of(to_request(["a", attach(large), attach(large)])).opened() as body:
        body.read(1000)
        pieces = [piece for piece in body._pieces if isinstance(piece, _Base64)]
        assert [piece._file is None for piece in pieces] == [False, True]  # the second one is not open before its turn
        file = pieces[0]._file
    assert file.closed


def test_another_model_leaves_the_content_as_it_is(large):
    payload = payload_of(to_request(["a", attach(large)], model="one"))
    with payload.renamed("two").opened() as renamed, payload.opened() as original:
        new, old = json.loads(renamed.read()), json.loads(original.read())
    assert (new.pop("model"), old.pop("model")) == ("two", "one")
    assert new == old


def test_a_text_cannot_look_like_a_mark(tmp_path):
    payload = payload_of(to_request(["a", attach(LARGE[:100])]))
    mark = payload._skeleton.decode().partition('"url":"')[2][:34]
    text = f'"{mark[:-1].replace(mark[0], "x")}0"'  # not the mark itself, which never leaves the process
    with payload_of(to_request([text, attach(LARGE[:100])])).opened() as body:
        assert json.loads(body)["messages"][0]["content"][0]["text"] == text
