"""Sounds at a :class:`FakeServer`: a text is their bytes, so that what was spoken can be heard again."""

from __future__ import annotations

import contextlib
import io
import wave
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence

from .forms import ReceivedFile
from .model import ReplyFunction
from .received import ReceivedRequest
from .routing import Content, Handler, Routes, invalid_request, json_handler

__all__ = ["Audio"]

_WORD_SECONDS = 0.5
_WAV_RATE_HERTZ = 8000
# What a player or `file` knows each format by; the text follows. None of them can be played, except wav.
_SIGNATURES = {"mp3": b"ID3\x04\0\0\0\0\0\0", "opus": b"OggS", "aac": b"\xff\xf1", "flac": b"fLaC", "pcm": b""}
_CONTENT_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "pcm": "audio/pcm",
    "wav": "audio/wav",
}


class Audio:
    """Answers the paths of ``/audio``.

    Args:
        reply: what is heard, by the fields of the form, in which ``file`` is a :class:`ReceivedFile`. Default, and
            where it returns None: the text in the file, or its name and size.
    """

    def __init__(self, reply: Optional[ReplyFunction] = None) -> None:
        self._reply = reply
        self.routes: Routes = {
            ("POST", "/audio/speech"): json_handler(_speak),
            ("POST", "/audio/transcriptions"): self._hear_as("transcribe"),
            ("POST", "/audio/translations"): self._hear_as("translate"),
        }

    def _hear_as(self, task: str) -> Handler:
        def handle(request: ReceivedRequest, text: Optional[str], id_in_path: str) -> Content:
            files = [part for part in request.files if part.name == "file"]
            if not files or "model" not in request.form:
                missing = "model" if files else "file"
                return invalid_request(f"Missing required parameter: '{missing}'.", missing)
            name = request.form.get("response_format", "json")
            if name not in _WRITERS:
                return invalid_request(f"Invalid value: '{name}'. Supported: {', '.join(_WRITERS)}.", "response_format")
            heard: Any = text
            if heard is None:
                fields = {**request.form, "file": files[0]}
                heard = None if self._reply is None else self._reply(fields)
                heard = _text_of(files[0]) if heard is None else heard
            if not isinstance(heard, str):
                return Content(200, heard)
            return _WRITERS[name](_Transcript(heard, task, request.form))

        return handle


# -- speech -------------------------------------------------------------------------------------------------------


def _speak(request: ReceivedRequest, text: Optional[str]) -> Content:
    for name in ("input", "voice"):
        if not request.body.get(name):
            return invalid_request(f"Missing required parameter: '{name}'.", name)
    name = request.body.get("response_format") or "mp3"
    if name not in _CONTENT_TYPES:
        return invalid_request(f"Invalid value: '{name}'. Supported: {', '.join(_CONTENT_TYPES)}.", "response_format")
    spoken = str(request.body["input"] if text is None else text).encode("utf-8", "replace")
    sound = _wav(spoken) if name == "wav" else _SIGNATURES[name] + spoken
    return Content(200, sound, _CONTENT_TYPES[name])


def _wav(samples: bytes) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 1, _WAV_RATE_HERTZ, 0, "NONE", "NONE"))
        sound.writeframes(samples)
    return file.getvalue()


def _text_of(file: ReceivedFile) -> str:
    """Return the text that a file holds, as :func:`_speak` writes it; for other files, name and size."""
    content = _samples(file.content) if file.content.startswith(b"RIFF") else file.content
    signatures = [mark for mark in _SIGNATURES.values() if mark and content.startswith(mark)]
    with contextlib.suppress(UnicodeDecodeError):
        text = content[len(signatures[0]) if signatures else 0 :].decode()
        if text.strip() and "\0" not in text:
            return text
    return f"{file.filename}, {len(file.content)} bytes"


def _samples(content: bytes) -> bytes:
    """Return the samples of a wav; none of one that is damaged."""
    try:
        with wave.open(io.BytesIO(content)) as sound:
            return bytes(sound.readframes(sound.getnframes()))
    except (wave.Error, EOFError, RuntimeError):
        return b""


# -- transcripts --------------------------------------------------------------------------------------------------


class _Transcript(NamedTuple):
    """A text that was heard; each of its words takes half a second."""

    text: str
    task: str
    form: Mapping[str, Any]

    @property
    def language(self) -> str:
        """The language of the text."""
        return "english" if self.task == "translate" else str(self.form.get("language", "english"))

    @property
    def seconds(self) -> float:
        """The length of the sound."""
        return len(self.text.split()) * _WORD_SECONDS

    def segments(self) -> List[Dict[str, Any]]:
        """Return the lines of the text with their times."""
        return _timed([line for line in self.text.splitlines() if line.strip()], "text")

    def words(self) -> List[Dict[str, Any]]:
        """Return the words of the text with their times."""
        return _timed(self.text.split(), "word")


def _timed(texts: Sequence[str], name: str) -> List[Dict[str, Any]]:
    entries, start = [], 0.0
    for text in texts:
        end = start + len(text.split()) * _WORD_SECONDS
        entries.append({name: text, "start": start, "end": end})
        start = end
    return entries


def _json(transcript: _Transcript) -> Content:
    usage = {"type": "duration", "seconds": transcript.seconds}
    return Content(200, {"text": transcript.text, "usage": usage})


def _verbose_json(transcript: _Transcript) -> Content:
    wanted = transcript.form.get("timestamp_granularities[]", ["segment"])
    body: Dict[str, Any] = {
        "task": transcript.task,
        "language": transcript.language,
        "duration": transcript.seconds,
        "text": transcript.text,
        "usage": {"type": "duration", "seconds": transcript.seconds},
    }
    if "word" in wanted:
        body["words"] = transcript.words()
    if "segment" in wanted:
        figures = {"seek": 0, "tokens": [], "temperature": 0.0, "avg_logprob": -0.1}
        figures.update(compression_ratio=1.0, no_speech_prob=0.0)
        body["segments"] = [{"id": number, **figures, **entry} for number, entry in enumerate(transcript.segments())]
    return Content(200, body)


def _plain(text: str) -> Content:
    return Content(200, text.encode("utf-8", "replace"), "text/plain; charset=utf-8")


def _text(transcript: _Transcript) -> Content:
    return _plain(transcript.text + "\n")


def _srt(transcript: _Transcript) -> Content:
    return _plain("".join(f"{number}\n{_cue(entry, ',')}" for number, entry in enumerate(transcript.segments(), 1)))


def _vtt(transcript: _Transcript) -> Content:
    return _plain("WEBVTT\n\n" + "".join(_cue(entry, ".") for entry in transcript.segments()))


def _cue(entry: Mapping[str, Any], mark: str) -> str:
    return f"{_time(entry['start'], mark)} --> {_time(entry['end'], mark)}\n{entry['text']}\n\n"


def _time(seconds: float, mark: str) -> str:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{mark}{milliseconds:03}"


_WRITERS: Dict[str, Callable[[_Transcript], Content]] = {
    "json": _json,
    "text": _text,
    "srt": _srt,
    "verbose_json": _verbose_json,
    "vtt": _vtt,
}
