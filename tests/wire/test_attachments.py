"""Attachments: what ``attach`` takes, how their type is found, and the parts that the two APIs have for them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pickle
from pathlib import Path

import pytest

from chatpool import ChatRequest, ConfigurationError, attach
from chatpool._attachments import Attachment
from chatpool._transport import identity_of, payload_of
from chatpool._wire import responses_request, to_request
from chatpool._wire.request_size import request_size

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))
WAV = b"RIFF\x24\x08\x00\x00WAVEfmt " + bytes(40)
PDF = b"%PDF-1.4\n%%EOF\n"


def sent(request):
    """The body of a request as a server reads it."""
    payload = payload_of(request)
    if not isinstance(payload, bytes):
        with payload.opened() as opened:
            payload = opened if isinstance(opened, bytes) else opened.read()
    return json.loads(payload)


def chat_parts(*content):
    [message] = sent(to_request(list(content)))["messages"]
    assert message["role"] == "user"
    return message["content"]


def response_parts(*content):
    [message] = sent(to_request(responses_request(list(content))))["input"]
    assert message["role"] == "user"
    return message["content"]


def data_url(media_type, data):
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


@pytest.fixture
def write(tmp_path):
    def file(name, data):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return file


class TestParts:
    def test_an_image_is_a_data_url(self, write):
        url = data_url("image/png", PNG)
        text, image = chat_parts("What is it?", attach(write("a.png", PNG)))
        assert text == {"type": "text", "text": "What is it?"}
        assert image == {"type": "image_url", "image_url": {"url": url}}
        assert chat_parts(attach(PNG, detail="low")) == [
            {"type": "image_url", "image_url": {"url": url, "detail": "low"}}
        ]
        assert response_parts("What is it?", attach(PNG)) == [
            {"type": "input_text", "text": "What is it?"},
            {"type": "input_image", "image_url": url, "detail": "auto"},
        ]
        assert response_parts(attach(PNG, detail="high"))[0]["detail"] == "high"

    @pytest.mark.parametrize(
        ("data", "media_type", "form"),
        [
            (WAV, None, "wav"),
            (b"ID3\x03", None, "mp3"),
            (b"\xff\xfb\x90\x64", None, "mp3"),
            (b"fLaC\0", None, "flac"),
            (b"x", "audio/x-wav", "wav"),
            (b"x", "audio/mp4", "m4a"),
        ],
    )
    def test_sound_has_its_format(self, data, media_type, form):
        sound = {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": form}}
        assert chat_parts(attach(data, type=media_type)) == [sound]
        assert response_parts(attach(data, type=media_type)) == [sound]

    def test_a_pdf_is_a_file_with_its_name(self, write):
        path = write("report.bin", PDF)
        url = data_url("application/pdf", PDF)
        assert chat_parts(attach(path)) == [{"type": "file", "file": {"filename": "report.bin", "file_data": url}}]
        assert response_parts(attach(PDF, detail="low")) == [
            {"type": "input_file", "filename": "file.pdf", "file_data": url, "detail": "low"}
        ]
        assert chat_parts(attach(path, filename="q3.pdf"))[0]["file"]["filename"] == "q3.pdf"

    @pytest.mark.parametrize("name", ["a.md", "a.csv", "a.json", "a.yaml", "a.py", "a.html", "a.txt"])
    def test_a_text_file_is_its_text(self, write, name):
        text = 'He said "é\\n"\n'
        path = write(name, b"\xef\xbb\xbf" + text.encode())
        assert chat_parts("Sum up:", attach(path))[1] == {"type": "text", "text": text}
        assert response_parts(attach(path)) == [{"type": "input_text", "text": text}]

    def test_a_text_in_another_encoding_is_refused_when_it_is_sent(self, write):
        request = to_request([attach(write("a.txt", b"caf\xe9"))])
        with pytest.raises(ConfigurationError, match=r"a\.txt is no text in UTF-8 \(at byte 3\)"):
            sent(request)

    def test_urls_go_out_as_they_are(self):
        url = "https://example.invalid/a.jpg?sig=s3cret"
        assert chat_parts(attach(url)) == [{"type": "image_url", "image_url": {"url": url}}]
        assert response_parts(attach(url))[0]["image_url"] == url
        assert response_parts(attach("https://example.invalid/a.pdf")) == [
            {"type": "input_file", "file_url": "https://example.invalid/a.pdf"}
        ]

    def test_a_data_url_is_taken_apart(self):
        assert chat_parts(attach(data_url("image/png", PNG))) == chat_parts(attach(PNG))
        assert chat_parts(attach("data:,one%20two")) == [{"type": "text", "text": "one two"}]

    @pytest.mark.parametrize(
        ("attachment", "message"),
        [
            (attach("https://example.invalid/a.pdf"), "or use pool.responses"),
            (attach("https://example.invalid/a.mp3"), "download it and attach the file$"),
            (attach("https://example.invalid/photo?id=7"), r"https://example.invalid/photo: .* pass type="),
            (attach(b"\0\1\2"), "of 3 bytes: neither its first bytes nor its name say what it is: pass type="),
            (attach(b"x", filename="a.csv.gz"), "pass type="),
            (attach(b"x", type="video/mp4"), "takes images, sound, PDF files and text"),
            (attach(WAV, detail="low"), "detail= is for images"),
            (attach(b"", type="image/png"), "is empty"),
        ],
    )
    def test_what_has_no_part_is_refused(self, attachment, message):
        with pytest.raises(ConfigurationError, match=message):
            to_request([attachment])

    def test_nothing_secret_is_in_the_message(self):
        with pytest.raises(ConfigurationError) as raised:
            to_request([attach("https://me:s3cret@example.invalid/photo?token=s3cret")])
        assert "s3cret" not in str(raised.value)


class TestPlaces:
    def test_one_alone_is_a_message(self):
        assert sent(to_request(attach(PNG))) == sent(to_request([attach(PNG)]))
        assert sent(to_request(responses_request(attach(PNG)))) == sent(to_request(responses_request([attach(PNG)])))

    def test_they_stand_in_the_content_of_messages(self):
        own = {"type": "text", "text": "own", "cache_control": {}}
        messages = [{"role": "system", "content": "s"}, {"role": "user", "content": [own, "two", attach(PNG)]}]
        body = sent(to_request(messages, system="no"))
        assert body["messages"][0] == messages[0]
        assert [part["type"] for part in body["messages"][1]["content"]] == ["text", "text", "image_url"]
        assert body["messages"][1]["content"][0] == own
        assert isinstance(messages[1]["content"][2], Attachment)  # the item is not changed
        assert sent(to_request({"messages": [{"role": "user", "content": attach(PNG)}]}))["messages"] == [
            {"role": "user", "content": chat_parts(attach(PNG))}
        ]

    def test_they_stand_in_what_a_tool_returns(self):
        items = [{"type": "function_call_output", "call_id": "c", "output": ["a chart", attach(PNG)]}]
        [item] = sent(to_request(responses_request(items)))["input"]
        assert [part["type"] for part in item["output"]] == ["input_text", "input_image"]
        assert sent(to_request({"input": ["a", attach(PNG)]}))["input"][0]["role"] == "user"

    @pytest.mark.parametrize(
        ("item", "message"),
        [
            (["a", attach(PNG), None], "part 2 beside an attachment must be a str or an attachment, got an empty cell"),
            (["a", attach(PNG), 7], "got a value of type int"),
            ([{"role": "user", "content": "a"}, attach(PNG)], "put the attachment into the list of its 'content'"),
        ],
    )
    def test_other_things_beside_them_are_refused(self, item, message):
        for make in (to_request, responses_request):
            with pytest.raises(TypeError, match=message):
                make(item)

    def test_a_list_of_texts_is_refused_as_before(self):
        with pytest.raises(TypeError, match="message 0 of a list item is a str"):
            to_request(["a", "b"])

    @pytest.mark.parametrize(
        "request_", [ChatRequest({"image": attach(PNG)}, "/images"), ChatRequest({"x": attach(PNG)})]
    )
    def test_in_another_place_they_are_refused(self, request_):
        with pytest.raises(TypeError, match="(image|x) is an attachment, which has its place beside text"):
            payload_of(to_request(request_))

    def test_another_fault_of_the_body_is_named(self):
        with pytest.raises(ConfigurationError, match="temperature is nan"):
            payload_of(to_request([attach(PNG)], extra={"temperature": float("nan")}))
        circle = []
        circle.append(circle)
        with pytest.raises(ConfigurationError, match="circular"):
            payload_of(to_request([attach(PNG)], extra={"x": circle}))


class TestTypes:
    @pytest.mark.parametrize(
        ("head", "media_type"),
        [
            (PNG, "image/png"),
            (b"\xff\xd8\xff\xe0", "image/jpeg"),
            (b"GIF89a", "image/gif"),
            (b"RIFF....WEBPVP8", "image/webp"),
            (b"\0\0\0\x18ftypheic", "image/heic"),
            (WAV, "audio/wav"),
            (b"OggS", "audio/ogg"),
            (PDF, "application/pdf"),
        ],
    )
    def test_the_first_bytes_go_before_the_name(self, head, media_type):
        assert attach(head, filename="a.txt").media_type() == media_type

    def test_what_is_said_goes_before_everything(self, write):
        assert attach(write("a.png", PNG), type="Text/Plain; charset=utf-8").media_type() == "text/plain"

    @pytest.mark.parametrize(
        ("name", "media_type"),
        [
            ("a.WEBP", "image/webp"),
            ("a.csv", "text/csv"),
            ("a.docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        ],
    )
    def test_otherwise_the_name_says_it(self, write, name, media_type):
        assert attach(write(name, b"x")).media_type() == media_type

    def test_utf_16_is_no_mp3(self, write):
        assert attach(write("a.txt", b"\xff\xfea\0")).media_type() == "text/plain"


class TestAttach:
    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ((7,), TypeError, "got a int"),
            ((open,), TypeError, "must be a path, bytes or a URL"),
            (("",), ConfigurationError, "path of an attachment is empty"),
            (("data:image/png;base64",), ConfigurationError, "no comma"),
            (("data:image/png;base64,###",), ConfigurationError, "cannot be decoded"),
        ],
    )
    def test_a_wrong_source_is_refused(self, arguments, error, message):
        with pytest.raises(error, match=message) as raised:
            attach(*arguments)
        assert "###" not in str(raised.value)

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"type": "png"}, ConfigurationError),
            ({"type": 'image/png";'}, ConfigurationError),
            ({"type": 1}, TypeError),
            ({"detail": ""}, TypeError),
            ({"filename": b"a"}, TypeError),
            ({"max_bytes": 0}, TypeError),
            ({"max_bytes": True}, TypeError),
        ],
    )
    def test_a_wrong_option_is_refused(self, options, error):
        with pytest.raises(error, match=next(iter(options))):
            attach(PNG, **options)

    def test_it_is_a_value(self, write):
        path = write("a.png", PNG)
        assert attach(path) == attach(str(path)) == pickle.loads(pickle.dumps(attach(path)))
        assert len({attach(path), attach(str(path)), attach(PNG), attach(bytearray(PNG))}) == 2
        with pytest.raises(AttributeError):
            attach(path).path = "b"

    def test_its_repr_shows_neither_content_nor_secrets(self):
        assert repr(attach(b"s3cret")) == "<Attachment of 6 bytes>"
        assert repr(attach("data:text/plain,s3cret")) == "<Attachment of 6 bytes>"
        assert (
            repr(attach("HTTPS://me:s3cret@h.invalid/a.png?k=s3cret#s3cret")) == "<Attachment https://h.invalid/a.png>"
        )
        assert repr(attach(Path("a") / "b.png")) == f"<Attachment {os.path.join('a', 'b.png')}>"
        assert "s3cret" not in repr(to_request([attach(b"s3cret", type="text/plain")]))

    def test_nothing_is_read_before_a_request_is_made(self):
        attach("/there/is/no/such/file.png")

    @pytest.mark.parametrize("name", ["none.png", "folder", "nul\0.png", "fifo"])
    def test_what_is_no_file_is_refused_and_named(self, tmp_path, name):
        (tmp_path / "folder").mkdir()
        if hasattr(os, "mkfifo"):
            os.mkfifo(tmp_path / "fifo")
        with pytest.raises(ConfigurationError, match=f"the attachment .*{name[:3]}.* cannot be read: "):
            to_request([attach(os.path.join(tmp_path, name))])

    @pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="there is no such device here")
    def test_a_device_is_refused(self):
        with pytest.raises(ConfigurationError, match="no regular file"):
            to_request([attach("/dev/zero", type="image/png")])

    def test_a_large_one_is_refused(self, write):
        path = write("a.png", PNG)
        with pytest.raises(ConfigurationError, match=r"a\.png has 208 bytes, and an attachment has at most 207"):
            to_request([attach(path, max_bytes=207)])
        to_request([attach(path, max_bytes=208)])
        assert attach(path).max_bytes == 50 * 1024 * 1024


class TestSizes:
    """The same figures as for the parts that a caller has written."""

    @pytest.mark.parametrize(
        "attachment",
        [
            attach(PNG * 100),
            attach(PNG, detail="low"),
            attach(WAV + bytes(9_000_000)),
            attach(PDF + bytes(300_000)),
            attach("https://example.invalid/a.png"),
        ],
    )
    @pytest.mark.parametrize("make", [to_request, lambda item: to_request(responses_request(item))])
    def test_of_images_sound_and_files(self, attachment, make):
        request = make(["Describe it.", attachment])
        assert request_size(request) == request_size(ChatRequest(sent(request), request.path))

    def test_of_text(self):
        with_file = request_size(to_request([attach(b"x" * 5000, type="text/plain")]))
        assert 5000 <= with_file.prompt_bytes < 5100
        assert with_file.other_tokens == 0


def digest(item, **options):
    return identity_of(payload_of(to_request(item, **options)))


class TestIdentity:
    def test_the_content_counts_and_not_its_place(self, write):
        one = digest(["a", attach(write("one.png", PNG))])
        assert one == digest(["a", attach(write("two.png", PNG))]) == digest(["a", attach(PNG)])
        assert one != digest(["a", attach(PNG + b"!")])
        assert one != digest(["a", attach(PNG, detail="low")])
        assert base64.b64encode(PNG)[:40] not in one

    def test_the_name_of_a_pdf_is_sent_and_counts(self, write):
        assert digest([attach(write("one.pdf", PDF))]) != digest([attach(write("two.pdf", PDF))])

    def test_a_url_counts_by_its_text(self):
        assert digest([attach("https://h.invalid/a.png")]) != digest([attach("https://h.invalid/a.png?2")])

    def test_a_changed_file_is_another_one(self, write):
        path = write("a.png", PNG)
        first = digest([attach(path)])
        path.write_bytes(PNG[:-1] + b"!")
        assert digest([attach(path)]) != first

    def test_a_file_is_read_once_for_many_requests(self, write, monkeypatch):
        path, digests, sha256 = write("once.png", PNG + os.urandom(8)), [], hashlib.sha256
        monkeypatch.setattr("hashlib.sha256", lambda *args: digests.append(1) or sha256(*args))
        assert len({digest([f"question {number}", attach(path)]) for number in range(50)}) == 50
        assert len(digests) == 1
