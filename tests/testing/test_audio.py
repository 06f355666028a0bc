"""Speech, transcriptions and translations at a FakeServer."""

from __future__ import annotations

import io
import random
import wave

import pytest

from chatpool.testing import Answer, Error, ReceivedFile
from chatpool.testing.audio import _text_of


@pytest.fixture
def api_with(make_server, api_of):
    return lambda **options: api_of(make_server(**options))


def hear(api, content, *fields, filename="a.mp3", path="/audio/transcriptions"):
    return api.form(path, [("model", "whisper-1"), *fields], [("file", (filename, content))])


def speak(api, text, **fields):
    return api.post("/audio/speech", {"model": "tts-1", "input": text, "voice": "alloy", **fields})


@pytest.mark.parametrize("kind", ["mp3", "opus", "aac", "flac", "pcm", "wav"])
def test_what_was_spoken_is_heard_again(api_with, kind):
    api = api_with()
    sound = speak(api, "Grüß Gott,\nWelt", response_format=kind)
    assert sound.headers["content-type"].startswith("audio/")
    assert hear(api, sound.raw).json["text"] == "Grüß Gott,\nWelt"
    assert sound.raw == speak(api, "Grüß Gott,\nWelt", response_format=kind).raw


def test_speech_is_mp3_if_nothing_is_said(api_with):
    answer = speak(api_with(), "hello")
    assert (answer.headers["content-type"], answer.raw[:3]) == ("audio/mpeg", b"ID3")


def test_a_wav_is_one(api_with):
    with wave.open(io.BytesIO(speak(api_with(), "x" * 800, response_format="wav").raw)) as sound:
        assert (sound.getnchannels(), sound.getnframes() / sound.getframerate()) == (1, 0.1)


@pytest.mark.parametrize("content", [b"\xff\xfb\x00", b"", b"RIFF", b"RIFF\x04\0\0\0WAVE", b"a\0b", b"  "])
def test_of_other_sounds_name_and_size_are_heard(api_with, content):
    assert hear(api_with(), content).json["text"] == f"a.mp3, {len(content)} bytes"


def test_a_damaged_wav_is_a_sound_like_any_other(api_with):
    good = speak(api_with(), "hello" * 9, response_format="wav").raw
    damage = random.Random(1)
    for _ in range(2000):
        bad = bytearray(good[: damage.randint(4, len(good))])
        for _ in range(4):
            bad[damage.randrange(4, len(bad) + 1) - 1] = damage.randrange(256)
        assert isinstance(_text_of(ReceivedFile("file", "a.wav", "audio/wav", b"RIFF" + bad[4:])), str)


def test_a_silent_wav_has_no_text(api_with):
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", "NONE"))
        sound.writeframes(bytes(1600))
    assert hear(api_with(), file.getvalue()).json["text"] == "a.mp3, 1644 bytes"


@pytest.mark.parametrize(
    ("response_format", "said"),
    [
        ("text", "one two\nthree\n"),
        ("srt", "1\n00:00:00,000 --> 00:00:01,000\none two\n\n2\n00:00:01,000 --> 00:00:01,500\nthree\n\n"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\none two\n\n00:00:01.000 --> 00:00:01.500\nthree\n\n"),
    ],
)
def test_transcripts_as_text(api_with, response_format, said):
    answer = hear(api_with(), b"one two\nthree", ("response_format", response_format))
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.raw.decode() == said


def test_a_verbose_transcript_has_the_times_that_are_asked_for(api_with):
    api, verbose = api_with(), ("response_format", "verbose_json")
    body = hear(api, b"one two", verbose, ("language", "de")).json
    assert (body["language"], body["duration"]) == ("de", 1.0)
    assert [segment["text"] for segment in body["segments"]] == ["one two"]
    assert "words" not in body
    body = hear(api, b"one two", verbose, ("timestamp_granularities[]", "word")).json
    assert body["words"] == [{"word": "one", "start": 0.0, "end": 0.5}, {"word": "two", "start": 0.5, "end": 1.0}]
    assert "segments" not in body


def test_a_long_sound_has_hours(api_with):
    assert b"01:00:00,500" in hear(api_with(), b"x " * 7201, ("response_format", "srt")).raw


def test_a_translation_is_english(api_with):
    answer = hear(api_with(), b"Hallo", ("response_format", "verbose_json"), path="/audio/translations")
    assert [answer.json[name] for name in ("task", "language", "text")] == ["translate", "english", "Hallo"]


def test_reply_hears_by_the_form(api_with):
    def reply(fields):
        assert isinstance(fields["file"], ReceivedFile)
        return f"{fields['model']} heard {fields['file'].filename}"

    assert hear(api_with(reply=reply), b"x").json["text"] == "whisper-1 heard a.mp3"
    assert hear(api_with(reply=lambda fields: {"own": 1}), b"x").json == {"own": 1}


def test_a_script_says_what_is_heard_and_spoken(api_with):
    api = api_with(script=[Answer("hi"), Answer("hi"), Error(503)])
    assert hear(api, b"x").json["text"] == "hi"
    assert speak(api, "x", response_format="pcm").raw == b"hi"
    assert hear(api, b"x").status == 503


@pytest.mark.parametrize(
    ("fields", "files", "param"),
    [
        ([("model", "m")], [], "file"),
        ([], [("file", ("a", b"x"))], "model"),
        ([("model", "m"), ("response_format", "mp3")], [("file", ("a", b"x"))], "response_format"),
    ],
)
def test_a_wrong_transcription_is_refused(api_with, fields, files, param):
    answer = api_with().form("/audio/transcriptions", fields, files)
    assert (answer.status, answer.json["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"voice": "a"}, "input"),
        ({"input": "x"}, "voice"),
        ({"input": "x", "voice": "a", "response_format": "avi"}, "response_format"),
    ],
)
def test_a_wrong_speech_is_refused(api_with, body, param):
    answer = api_with().post("/audio/speech", body)
    assert (answer.status, answer.json["error"]["param"]) == (400, param)
