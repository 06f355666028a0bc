"""Every request that a pool makes, against OpenAI's API description beside the checkout."""

from __future__ import annotations

import dataclasses
import json

import pytest

from chatpool import APIResponseError, ChatPool, ChatRequest, attach, batch, speech, transcription
from chatpool.batch import shards
from chatpool.testing import FakeServer
from tests.api_description import needs_description, problems_of_request
from tests.waiting import until

pytestmark = needs_description

WAV = b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x40\x1f\0\0\1\0\x08\0data\0\0\0\0"
PNG = b"\x89PNG\r\n\x1a\n and so on"
TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}
MESSAGES = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "ping"}]


@dataclasses.dataclass
class Place:
    city: str
    people: int


@pytest.fixture
def server():
    with FakeServer(reply=answer) as server:
        yield server


def answer(body):
    return None if "file" in body else '{"city": "Rome", "people": 3}'


@pytest.fixture
def pool(server):
    with ChatPool("gpt-4o-mini", base_url=server.base_url, api_key="sk-x", retry=0) as pool:
        yield pool


def chats(pool, tmp_path):
    pool.chat("ping")
    pool.chat(MESSAGES, temperature=0, max_tokens=5, n=2, tools=[TOOL], metadata={"team": "a"})
    pool.chat("ping", parse=Place, system="be brief")
    pool.chat(["what is it?", attach(PNG), attach(WAV), attach(b"%PDF-1.4", filename="a.pdf")])
    pool.chat("ping", collect_stream=True)
    pool.chat({"prompt": "ping", "max_tokens": 3}, model="gpt-3.5-turbo-instruct")
    pool.submit("ping").result()


def answers_by_the_responses_api(pool, tmp_path):
    pool.responses("ping")
    pool.responses("ping", system="be brief", parse=Place, max_output_tokens=50)
    pool.responses("ping", previous_response_id="resp_1", store=False, collect_stream=True)


def answers_made_in_the_background(pool, tmp_path):
    reply = pool.responses("ping", background=True, max_output_tokens=50)
    assert reply.text
    future = pool.submit({"input": "ping", "background": True})
    until(lambda: pool.stats().parked)  # the server has promised it
    future.cancel()


def sound_files(pool, tmp_path):
    (tmp_path / "in.csv").write_text("text,instructions\none,softly\ntwo,\n")
    options = {"pool": pool, "url": "speech", "column": "text", "save_to": tmp_path / "talks"}
    assert batch.run(tmp_path / "in.csv", tmp_path / "spoken.jsonl", **options, speed=1.5).succeeded == 2
    fields = {"language": "de", "timestamp_granularities": ["word"], "response_format": "verbose_json"}
    for url in ("transcriptions", "translations"):
        mine = fields if url == "transcriptions" else {}
        options = {"pool": pool, "url": url}
        assert batch.run(tmp_path / "talks", tmp_path / f"{url}.jsonl", **options, **mine).succeeded == 2


def streams(pool, tmp_path):
    for item in ("ping", {"input": "ping"}, {"prompt": "ping"}):
        assert list(pool.stream(item))
    list(pool.stream_many(["a", "b"]))


def runs(pool, tmp_path):
    pool.map(["a", {"input": "b"}], journal=tmp_path / "journal")
    list(pool.imap(["a"]))
    list(pool.as_completed(["a"]))
    pool.embed(["a", "b"], model="text-embedding-3-small")
    pool.embed([[1, 2, 3]], model="text-embedding-3-small", dimensions=8)


def sounds(pool, tmp_path):
    sound = pool.speak("hello", to=tmp_path / "hello.wav", model="tts-1", speed=1.5, instructions="softly")
    pool.speak("hello", voice={"id": "voice_1"}, model="gpt-4o-mini-tts", response_format="opus")
    pool.transcribe(sound, model="whisper-1")
    options = {"temperature": 0.5, "language": "de", "prompt": "Zoe", "timestamp_granularities": ["word", "segment"]}
    pool.transcribe(WAV, model="whisper-1", response_format="verbose_json", **options)
    pool.transcribe(WAV, model="gpt-4o-transcribe", include=["logprobs"])
    pool.translate(WAV, model="whisper-1", response_format="srt")
    pool.map([speech("a", to=tmp_path / "a.mp3", model="tts-1"), transcription(WAV, model="whisper-1")])


def pictures(pool, tmp_path):
    pool.images("a cat", model="gpt-image-1", n=2, size="1024x1024", output_format="webp")
    pool.images("a cat", model="dall-e-3", quality="hd")
    pool.images("with a hat", model="gpt-image-1", image=PNG, mask=PNG)
    pool.images("both", model="gpt-image-1", image=[PNG, PNG], n=1)


def stored_files(pool, tmp_path):
    stored = pool.files.upload(("a.txt", b"hello"), "user_data", expires_after=3600)
    pool.files.list(purpose="user_data", query={"limit": 5})
    pool.files.get(stored["id"])
    pool.files.content(stored["id"], to=tmp_path / "a.txt")
    pool.files.delete(stored["id"])


def the_rest(pool, tmp_path):
    pool.moderate("a friendly text")
    pool.moderate([{"type": "text", "text": "hello"}], model="omni-moderation-latest")
    pool.models()
    pool.request("/chat/completions", {"model": "m", "messages": MESSAGES})


def several_answers_and_other_models(pool, tmp_path):
    samples = {"samples": 3, "parse": Place}
    pool.map([{"input": "ping"}], **samples)
    pool.map(["ping"], **samples, seed=1)
    fallbacks = ["gpt-4o", {"max_tokens": 9}, {"service_tier": "flex"}]
    assert isinstance(pool.submit("one", accept=["tool_calls"], fallbacks=fallbacks).exception(), APIResponseError)
    (tmp_path / "in.txt").write_text("one\ntwo\n")
    view = pool.with_options(fallbacks=["gpt-4o"])
    assert batch.run(tmp_path / "in.txt", tmp_path / "out.jsonl", pool=view, **samples).succeeded == 2


def batch_files(pool, tmp_path):
    rows = [{"custom_id": f"r{number}", "prompt": "ping"} for number in range(3)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    batch.run(tmp_path / "in.jsonl", tmp_path / "out.jsonl", pool=pool, temperature=0)
    plan = shards.split(tmp_path / "in.jsonl", tmp_path / "shards", rows=2)
    shards.run(plan, 0, pool=pool)


def the_batch_api(pool, tmp_path):
    (tmp_path / "in.txt").write_text("one\ntwo\n")
    batch.submit(tmp_path / "in.txt", tmp_path / "out.jsonl", pool=pool)
    batch.wait(tmp_path / "out.jsonl", pool=pool)
    assert batch.collect(tmp_path / "out.jsonl", pool=pool).succeeded == 2
    batch.submit(tmp_path / "in.txt", tmp_path / "other.jsonl", pool=pool)
    batch.cancel(tmp_path / "other.jsonl", pool=pool)


@pytest.mark.parametrize(
    "calls",
    [
        chats,
        answers_by_the_responses_api,
        answers_made_in_the_background,
        streams,
        runs,
        sounds,
        sound_files,
        pictures,
        stored_files,
        the_rest,
        several_answers_and_other_models,
        batch_files,
        pytest.param(the_batch_api, marks=pytest.mark.slow),
    ],
    ids=lambda calls: calls.__name__,
)
def test_what_a_pool_sends_is_what_the_api_takes(pool, server, tmp_path, calls):
    calls(pool, tmp_path)
    problems = [
        (request.method, request.path, problem)
        for request in server.requests
        for problem in problems_of_request(request)
    ]
    assert server.requests
    assert problems == []


@pytest.mark.parametrize(
    "request_",
    [
        ChatRequest({"model": "m", "messages": [{"role": "user"}]}),
        ChatRequest({"model": "m", "messages": MESSAGES, "temprature": 0}),
        ChatRequest({}, "/nowhere"),
        ChatRequest({"purpose": "fun"}, "/files", files={"file": b"x"}),
        ChatRequest({"model": "whisper-1", "mood": "good"}, "/audio/transcriptions", files={"file": WAV}),
        ChatRequest({"model": "whisper-1"}, "/audio/transcriptions"),
    ],
)
def test_what_the_api_does_not_take_is_noticed(pool, server, request_):
    pool.submit(request_).exception()
    (request,) = server.requests
    assert problems_of_request(request)
