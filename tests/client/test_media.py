"""Sound, pictures, moderation, stored files and models, in the API's words."""

from __future__ import annotations

import io
import os
import pathlib

import pytest

import chatpool
from chatpool import APIResponseError, ChatPool, ConfigurationError, NotFoundError, speech, transcription
from chatpool.testing import Answer, Error, FakeServer

WAV = b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x40\x1f\0\0\1\0\x08\0data\0\0\0\0"
PNG = b"\x89PNG\r\n\x1a\n and so on"


@pytest.fixture
def server():
    with FakeServer() as server:
        yield server


@pytest.fixture
def pool(server):
    with ChatPool("the-model", base_url=server.base_url, api_key="sk-x", retry=0) as pool:
        yield pool


@pytest.fixture
def spoken(pool, tmp_path):
    """A file in which a text is spoken."""
    return pool.speak("good morning", to=tmp_path / "morning.wav")


def test_what_is_spoken_can_be_heard_again(pool, server, spoken, tmp_path):
    assert spoken == tmp_path / "morning.wav"
    assert pool.transcribe(spoken) == "good morning"
    assert server.requests[0].body == {
        "model": "the-model",
        "input": "good morning",
        "voice": "alloy",
        "response_format": "wav",
    }
    assert server.requests[1].form == {"model": "the-model", "response_format": "json"}


def test_a_sound_is_a_path_bytes_a_file_or_a_tuple(pool, server, spoken):
    data = spoken.read_bytes()
    with open(spoken, "rb") as file:
        sounds = [str(spoken), spoken, data, io.BytesIO(data), file, ("other.wav", data)]
        assert [pool.transcribe(sound) for sound in sounds] == ["good morning"] * 6
    names = [request.files[0].filename for request in server.requests[1:]]
    assert names == ["morning.wav", "morning.wav", "audio.wav", "audio.wav", "morning.wav", "other.wav"]


@pytest.mark.parametrize("response_format", ["json", "verbose_json"])
def test_a_transcript_may_be_what_the_server_says(pool, spoken, response_format):
    answer = pool.transcribe(spoken, response_format=response_format)
    assert (answer["text"], type(answer)) == ("good morning", dict)


@pytest.mark.parametrize("response_format", ["srt", "vtt"])
def test_subtitles_are_a_text(pool, spoken, response_format):
    assert "00:00:00" in pool.transcribe(spoken, response_format=response_format)


def test_fields_of_the_call_go_before_those_of_the_pool(pool, server, spoken):
    pool.translate(spoken, model="whisper-1", temperature=0, prompt="a greeting", timestamp_granularities=["word"])
    request = server.requests[-1]
    assert request.path == "/v1/audio/translations"
    assert b'name="timestamp_granularities[]"' in request.raw
    fields = {name: request.form[name] for name in ("model", "temperature", "prompt")}
    assert fields == {"model": "whisper-1", "temperature": "0", "prompt": "a greeting"}


def test_a_transcript_without_a_text_is_asked_for_again(server, spoken):
    server.enqueue(Answer(body={"usage": {}}), None)
    with ChatPool("m", base_url=server.base_url, api_key="sk-x") as pool:
        assert pool.transcribe(spoken) == "good morning"
    assert len(server.requests) == 3


def test_options_of_calls_are_no_fields(pool, server, spoken):
    pool.transcribe(
        spoken, timeout=30, retry=1, headers={"x-team": "a"}, query={"v": "1"}, priority=2, when_down="raise"
    )
    assert server.requests[-1].headers["x-team"] == "a"
    assert server.requests[-1].query == {"v": "1"}
    assert set(server.requests[-1].form) == {"model", "response_format"}


@pytest.mark.parametrize("name", ["parse", "journal", "stream"])
def test_what_these_calls_cannot_do_is_refused(pool, spoken, server, name):
    sent = len(server.requests)
    with pytest.raises(TypeError, match=name):
        pool.transcribe(spoken, **{name: True})
    assert len(server.requests) == sent


@pytest.mark.parametrize(
    ("audio", "kind", "message"),
    [
        (3, TypeError, "audio must be a path, bytes"),
        (io.StringIO("text"), TypeError, "audio must be a path, bytes"),
        (b"nobody knows what this is", ConfigurationError, "pass type=|say what it is"),
        ("no such file.mp3", ConfigurationError, "cannot read no such file.mp3"),
    ],
)
def test_what_is_no_sound_is_refused(pool, server, audio, kind, message):
    with pytest.raises(kind, match=message):
        pool.transcribe(audio)
    assert server.requests == []


def test_speech_is_bytes_without_a_file(pool, server):
    assert pool.speak("hello", response_format="flac") == b"fLaChello"
    assert pool.speak("hello", voice="nova").endswith(b"hello")
    assert [request.body.get("response_format") for request in server.requests] == ["flac", None]


@pytest.mark.parametrize(("name", "wanted"), [("a.mp3", "mp3"), ("a.OGG", "opus"), ("a.pcm", "pcm")])
def test_the_ending_says_what_sound_is_wanted(tmp_path, name, wanted):
    assert speech("hello", to=tmp_path / name).body["response_format"] == wanted


def test_an_ending_that_says_nothing_is_refused(pool, server, tmp_path):
    with pytest.raises(ConfigurationError, match="does not say what sound is wanted"):
        pool.speak("hello", to=tmp_path / "hello.sound")
    assert pool.speak("hello", to=tmp_path / "hello.sound", response_format="mp3").exists()


@pytest.mark.parametrize("text", ["", None, 3, ["hello"]])
def test_nothing_can_only_be_spoken_of_a_text(pool, server, text):
    with pytest.raises(TypeError, match="a text to speak must be a str that is not empty"):
        pool.speak(text)
    assert server.requests == []


# -- pictures --------------------------------------------------------------------------------------------------


def test_pictures_are_bytes_or_files(pool, server, tmp_path):
    first, second = pool.images("a cat", n=2, model="gpt-image-1")
    assert first.startswith(b"\x89PNG")
    paths = pool.images("a cat", n=3, model="gpt-image-1", to=str(tmp_path / "cat.png"))
    assert paths == [tmp_path / "cat.png", tmp_path / "cat-2.png", tmp_path / "cat-3.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert "response_format" not in server.requests[0].body


def test_older_models_are_asked_for_the_picture_and_not_for_its_address(pool, server):
    pool.images("a cat", model="dall-e-3")
    assert server.requests[0].body["response_format"] == "b64_json"
    (address,) = pool.images("a cat", model="dall-e-3", response_format="url")
    assert address.startswith("http")
    assert len(server.requests) == 2, "nothing is fetched from there"


def test_an_address_cannot_be_saved(pool, tmp_path):
    with pytest.raises(APIResponseError, match="an address in the place of a picture"):
        pool.images("a cat", model="dall-e-3", response_format="url", to=tmp_path / "cat.png")
    assert os.listdir(tmp_path) == []


def test_a_picture_is_changed(pool, server, tmp_path):
    (tmp_path / "cat.png").write_bytes(PNG)
    pool.images("with a hat", image=tmp_path / "cat.png", mask=PNG)
    pool.images("both", image=[str(tmp_path / "cat.png"), PNG])
    one, several = server.requests
    assert one.path == several.path == "/v1/images/edits"
    assert [(part.name, part.filename) for part in one.files] == [("image", "cat.png"), ("mask", "mask.png")]
    assert [(part.name, part.filename) for part in several.files] == [("image[]", "cat.png"), ("image[]", "image.png")]


@pytest.mark.parametrize("entry", [{}, {"b64_json": "?"}, "text", {"b64_json": None}])
def test_an_entry_that_is_no_picture_is_an_error_with_the_answer(pool, server, entry):
    server.enqueue(Answer(body={"data": [entry]}))
    with pytest.raises(APIResponseError, match="picture") as caught:
        pool.images("a cat")
    assert caught.value.body == {"data": [entry]}


# -- moderation, files, models -----------------------------------------------------------------------------------


def test_a_moderation_is_that_of_the_text(pool, server):
    assert pool.moderate("a friendly text")["flagged"] is False
    assert len(pool.moderate(["one", "two"], model="omni-moderation-latest")) == 2
    assert [request.body.get("model") for request in server.requests] == [None, "omni-moderation-latest"]


def test_files_are_stored_listed_read_and_removed(pool, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n')
    stored = pool.files.upload(path, "batch")
    other = pool.files.upload(("notes.txt", b"hello"), "user_data", expires_after=3600)
    assert (stored["filename"], stored["purpose"], stored["bytes"]) == ("rows.jsonl", "batch", 9)
    assert pool.files.get(other["id"])["expires_at"] == other["created_at"] + 3600
    assert pool.files.content(stored["id"]) == b'{"a": 1}\n'
    target = pool.files.content(stored["id"], to=tmp_path / "copy.jsonl")
    assert target.read_bytes() == b'{"a": 1}\n'
    assert {file["id"] for file in pool.files.list()} == {stored["id"], other["id"]}
    assert [file["id"] for file in pool.files.list(purpose="batch")] == [stored["id"]]
    assert pool.files.delete(stored["id"])["deleted"] is True
    with pytest.raises(NotFoundError):
        pool.files.get(stored["id"])


def test_all_pages_are_listed(pool, server):
    names = [pool.files.upload((f"{number}", b"x"), "user_data")["id"] for number in range(25)]
    found = pool.files.list(query={"limit": "10"})
    assert sorted(file["id"] for file in found) == sorted(names)
    assert len([request for request in server.requests if request.method == "GET"]) == 3


def test_a_list_that_never_ends_is_not_followed_for_ever(server, pool):
    server.set_script(lambda request: Answer(body={"data": [{"id": "file-1"}], "has_more": True}))
    assert len(pool.files.list()) == 2


@pytest.mark.parametrize("page", [{"data": None}, {}, {"data": ["text"]}])
def test_what_is_no_list_of_files_is_an_error(server, pool, page):
    server.enqueue(Answer(body=page))
    with pytest.raises(APIResponseError, match="no list of files"):
        pool.files.list()


def test_an_id_stays_within_its_place_in_the_path(pool, server):
    with pytest.raises(NotFoundError):
        pool.files.get("../models?x=1")
    assert server.requests[0].path == "/v1/files/..%2Fmodels%3Fx%3D1"
    for file_id in ("", None, 3):
        with pytest.raises(TypeError, match="file_id must be a str"):
            pool.files.delete(file_id)


def test_models_are_names(pool, server):
    assert pool.models() == ["fake-model"]
    server.enqueue(Answer(body={"models": []}))
    with pytest.raises(APIResponseError, match="no list of models"):
        pool.models(timeout=5)


# -- runs --------------------------------------------------------------------------------------------------------


def test_sounds_to_texts_in_a_run_that_goes_on(server, tmp_path):
    paths = []
    for number in range(12):
        paths.append(tmp_path / f"{number}.txt")
        paths[-1].write_text(f"spoken {number}")
    server.set_script(lambda request: Error(400) if b"spoken 7" in request.raw else None)
    with ChatPool("whisper-1", base_url=server.base_url, api_key="sk-x") as pool:
        requests = [transcription(path, model="whisper-1") for path in paths]
        first = pool.map(requests, journal=tmp_path / "j", max_failures=None)
        assert [answer and answer["text"] for answer in first] == [
            None if number == 7 else f"spoken {number}" for number in range(12)
        ]
        server.set_script(None)
        sent = len(server.requests)
        paths[3].write_text("spoken anew")
        again = pool.map(requests, journal=tmp_path / "j")
        assert [request.files[0].content for request in server.requests[sent:]] == [b"spoken anew"]
        assert again[3]["text"] == "spoken anew"
        assert again[4]["text"] == "spoken 4"


def test_texts_to_sounds_in_a_run_that_goes_on(server, tmp_path):
    texts = [f"text {number}" for number in range(12)]

    def run(pool):
        return pool.map(
            texts, prompt=lambda text: speech(text, to=tmp_path / f"{text}.mp3", model="tts-1"), journal=tmp_path / "j"
        )

    with ChatPool(base_url=server.base_url, api_key="sk-x") as pool:
        assert run(pool) == [tmp_path / f"{text}.mp3" for text in texts]
        (tmp_path / "text 5.mp3").unlink()
        (tmp_path / "text 6.mp3").write_bytes(b"cut")
        assert run(pool) == [tmp_path / f"{text}.mp3" for text in texts]
        assert sorted(request.body["input"] for request in server.requests[12:]) == ["text 5", "text 6"]
        assert (tmp_path / "text 6.mp3").read_bytes().endswith(b"text 6")


def test_bytes_and_texts_of_a_run_come_back_from_its_journal(server, tmp_path):
    with ChatPool(base_url=server.base_url, api_key="sk-x") as pool:
        requests = [speech("hello", model="tts-1"), transcription(WAV, model="whisper-1", response_format="vtt")]
        first = pool.map(requests, journal=tmp_path / "j")
        assert list(pool.map(requests, journal=tmp_path / "j")) == list(first)
        assert [type(value) for value in first] == [bytes, str]
    assert len(server.requests) == 2


def test_equal_sounds_are_sent_once_and_different_files_are_not_taken_for_equal(server, tmp_path):
    with ChatPool(base_url=server.base_url, api_key="sk-x") as pool:
        same = [transcription(("a.wav", WAV), model="w"), transcription(("b.wav", WAV), model="w")]
        pool.map(same, dedupe=True)
        assert len(server.requests) == 1
        pool.map([speech("hello", to=tmp_path / name, model="t") for name in ("a.mp3", "b.mp3")], dedupe=True)
        assert len(server.requests) == 3
    assert (tmp_path / "a.mp3").exists()
    assert (tmp_path / "b.mp3").exists()


def test_the_makers_of_requests_are_public():
    assert {"speech", "transcription", "translation"} <= set(chatpool.__all__)
    assert chatpool.translation(pathlib.Path("a.mp3")).path == "/audio/translations"
