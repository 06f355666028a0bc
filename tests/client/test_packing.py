"""Many texts in one request, and one outcome per text all the same."""

from __future__ import annotations

import io
import threading

import pytest

from chatpool import APIResponseError, AuthenticationError, BadRequestError, ChatPool, ConfigurationError, Limits
from chatpool._client import embedding_batches
from chatpool.testing import Answer, Error, FakeServer, Stall, embedding_vector


def sizes(server):
    return [len(request.body["input"]) for request in server.requests]


def bad_text(request):
    return Error(400) if "bad" in request.body["input"] else None


def larger_than(most):
    return lambda request: Error(413) if len(request.body["input"]) > most else None


@pytest.fixture
def embed():
    """``embed(texts, script, **options)`` embeds with four numbers per text; returns results and server."""

    def run(texts, script=None, **options):
        with FakeServer(script) as server, ChatPool("e", base_url=server.base_url, max_workers=2, retry=0) as pool:
            return pool.embed(texts, dimensions=4, progress=False, **options), server

    return run


def test_texts_go_out_together_and_come_back_in_order(embed):
    texts = [f"text {number}" for number in range(300)]
    results, server = embed(texts)
    assert sizes(server) == [300]
    assert results == [pytest.approx(embedding_vector(text, 4)) for text in texts]
    assert [outcome.index for outcome in results.outcomes] == list(range(300))
    assert [outcome.item for outcome in results.outcomes] == texts
    assert {outcome.attempts for outcome in results.outcomes} == {1}


def test_a_request_has_at_most_2048_texts(embed):
    results, server = embed([str(number) for number in range(5000)])
    assert sorted(sizes(server)) == [904, 2048, 2048]
    assert len(results) == 5000


@pytest.mark.parametrize(("text", "packs_of"), [("x" * 300_000, 2), ("ü" * 50_000, 5), ([7] * 60_000, 5)])
def test_a_request_has_at_most_300000_tokens_by_a_careful_guess(embed, text, packs_of):
    _, server = embed([text] * (packs_of + 1))
    assert sorted(sizes(server)) == [1, packs_of]


def test_a_text_that_cannot_be_sent_costs_the_others_nothing(embed):
    results, _ = embed([*map(str, range(20)), "half of a pair: \ud800"], on_error="return")
    assert isinstance(results[-1], ConfigurationError)
    assert results[:-1] == [pytest.approx(embedding_vector(str(number), 4)) for number in range(20)]


def test_a_request_above_the_limit_of_the_pool_goes_out_in_halves():
    texts = ["x" * 3000 for _ in range(16)]
    limits = Limits(tokens_per_minute=6000)
    with FakeServer() as server, ChatPool("e", base_url=server.base_url, max_workers=2, limits=limits) as pool:
        for outcome in pool.embed(texts, dimensions=4, progress=False, run_timeout=1, on_error="return").outcomes:
            assert not isinstance(outcome.error, ConfigurationError)
    assert sizes(server) == [8, 8]


def test_what_is_refused_for_its_size_is_sent_again_in_halves(embed):
    texts = [str(number) for number in range(100)]
    results, server = embed(texts, larger_than(30))
    assert sorted(sizes(server)) == [25] * 4 + [50] * 2 + [100]
    assert results == [pytest.approx(embedding_vector(text, 4)) for text in texts]
    assert [attempt.status for attempt in results.outcomes[0].history] == [413, 413, 200]


def test_once_the_server_has_said_it_packs_are_smaller(embed, monkeypatch):
    monkeypatch.setattr(embedding_batches, "MAX_BATCH_TEXTS", 64)
    results, server = embed([str(number) for number in range(2000)], larger_than(32))
    assert all(results)
    assert sorted(sizes(server)[-20:]) == [2000 % 32] + [32] * 19  # two workers: the last may overtake the one before


def test_one_bad_text_costs_only_itself(embed):
    texts = [str(number) for number in range(64)]
    texts[37] = "bad"
    results, _ = embed(texts, bad_text, on_error="return")
    assert isinstance(results[37], BadRequestError)
    assert [outcome.index for outcome in results.failures] == [37]
    assert results[36] == pytest.approx(embedding_vector("36", 4))


def test_one_bad_text_does_not_make_packs_small(embed, monkeypatch):
    monkeypatch.setattr(embedding_batches, "MAX_BATCH_TEXTS", 64)
    texts = ["bad", *(str(number) for number in range(1, 64 * 20))]
    _, server = embed(texts, bad_text)
    assert sizes(server).count(64) == 20


def test_a_row_that_is_no_text_fails_alone(embed):
    results, server = embed(["a", None, "b"], on_error="return")
    assert isinstance(results[1], ConfigurationError)
    assert "item 1: a text to embed must be a str" in str(results[1])
    assert sizes(server) == [2]


def test_rows_that_are_no_texts_are_no_requests(embed):
    results, server = embed([None, 7])
    assert results == [None, None]
    assert server.requests == []


@pytest.mark.parametrize("shuffle", [list, lambda data: list(reversed(data))])
def test_answers_are_put_in_their_places_by_index(embed, shuffle):
    def script(request):
        vectors = [
            {"index": place, "embedding": embedding_vector(text, 4)} for place, text in enumerate(request.body["input"])
        ]
        return Answer(body={"object": "list", "data": shuffle(vectors), "model": "e"})

    results, _ = embed(["a", "b", "c"], script)
    assert results == [pytest.approx(embedding_vector(text, 4)) for text in "abc"]


@pytest.mark.parametrize(
    "data",
    [
        [None, None],
        [{"index": 0}, {"index": 1}],
        [{"index": 0, "embedding": "no base64"}, {"index": 1, "embedding": [None]}],
        [{"index": 0, "embedding": [float("nan")]}, {"index": 1, "embedding": [1.0, float("-inf")]}],
    ],
)
def test_an_answer_without_any_vector_is_a_failure_of_all_its_texts(embed, data):
    results, _ = embed(["a", "b"], lambda request: Answer(body={"data": data}), on_error="return")
    assert [type(error).__name__ for error in results] == ["APIResponseError"] * 2


def test_a_fatal_error_ends_the_run(embed, monkeypatch):
    monkeypatch.setattr(embedding_batches, "MAX_BATCH_TEXTS", 10)
    results, server = embed([str(number) for number in range(1000)], lambda request: Error(401), on_error="return")
    assert len(server.requests) <= 2
    assert len(results) == 1000
    assert {type(error) for error in results} == {AuthenticationError}


def test_the_first_failure_is_raised_when_asked_for(embed):
    with pytest.raises(BadRequestError) as caught:
        embed(["a", "bad", "b", "c"], bad_text, on_error="raise")
    assert len(caught.value.results) == 4


def test_halves_that_go_well_raise_nothing(embed):
    results, _ = embed([str(number) for number in range(40)], larger_than(10), on_error="raise")
    assert all(results)


def test_the_bar_counts_texts(embed):
    shown = io.StringIO()
    with FakeServer() as server, ChatPool("e", base_url=server.base_url) as pool:
        pool.embed(["a", "b", None], progress={"file": shown, "mininterval": 0})
    last = shown.getvalue().split("\r")[-1]
    assert "3/3" in last
    assert "1 failed" in last


def test_ctrl_c_keeps_what_was_done(monkeypatch):
    monkeypatch.setattr(embedding_batches, "MAX_BATCH_TEXTS", 5)
    texts = [str(number) for number in range(20)]

    def rows():
        yield from texts[:13]
        server.wait_for(2)
        raise KeyboardInterrupt

    server = FakeServer(lambda request: Stall() if "5" in request.body["input"] else None)
    with server, ChatPool("e", base_url=server.base_url, max_workers=2) as pool:
        with pytest.raises(KeyboardInterrupt) as caught:
            pool.embed(rows(), progress=False, on_error="return")
        outcomes = caught.value.results.outcomes
        assert [outcome.index for outcome in outcomes] == list(range(13))
        assert {outcome.index for outcome in outcomes if not outcome.ok} >= set(range(5, 13))
        assert pool.embed("still works")


def test_rows_with_a_prompt_are_packed_too():
    with FakeServer() as server, ChatPool("e", base_url=server.base_url) as pool:
        results = pool.embed([{"title": "a"}, {"title": "b"}], prompt=lambda row: row["title"], progress=False)
    assert sizes(server) == [2]
    assert [outcome.item["title"] for outcome in results.outcomes] == ["a", "b"]


def test_an_input_of_unknown_length_is_read_as_it_is_needed(monkeypatch):
    monkeypatch.setattr(embedding_batches, "MAX_BATCH_TEXTS", 10)
    read = []

    def rows():
        for number in range(2000):
            read.append(number)
            yield str(number)

    release = threading.Event()

    def script(request):
        assert release.wait(60)

    server = FakeServer(script)
    with server, ChatPool("e", base_url=server.base_url, max_workers=2) as pool:
        worker = threading.Thread(target=pool.embed, args=(rows(),), kwargs={"progress": False})
        worker.start()
        server.wait_for(2)
        assert len(read) < 200
        release.set()
        worker.join()
    assert len(read) == 2000


def vectors_for(texts, **entry):
    return [{"index": place, "embedding": [float(len(text))], **entry} for place, text in enumerate(texts)]


def texts_of(request):
    asked = request.body["input"]
    return [asked] if isinstance(asked, str) else asked


@pytest.fixture
def embed_patiently(instant_waits):
    """Like ``embed``, with the usual retries."""

    def run(texts, script, **options):
        with FakeServer(script) as server, ChatPool("e", base_url=server.base_url, max_workers=2) as pool:
            return pool.embed(texts, progress=False, **options), server

    return run


TEXTS = ["x" * length for length in range(1, 21)]
ANSWERS = [[float(length)] for length in range(1, 21)]


class TestServersThatEmbedNoLists:
    """Answers that have not one vector for each text."""

    @pytest.mark.parametrize("count", [0, 1])
    def test_they_are_sent_single_texts(self, embed_patiently, count):
        def script(request):
            data = vectors_for(texts_of(request))
            return Answer(body={"data": data if isinstance(request.body["input"], str) else data[:count]})

        results, server = embed_patiently(TEXTS, script)
        assert results == ANSWERS
        assert len(server.requests) == 20 + (2 if count == 0 else 1)

    def test_empty_vectors_are_asked_for_again_alone(self, embed_patiently):
        def script(request):
            alone = isinstance(request.body["input"], str)
            return Answer(body={"data": vectors_for(texts_of(request), **({} if alone else {"embedding": []}))})

        results, server = embed_patiently(TEXTS, script)
        assert results == ANSWERS
        assert len(server.requests) == 21

    def test_those_that_came_are_kept(self, embed_patiently):
        def script(request):
            data = vectors_for(texts_of(request))
            for place, text in enumerate(texts_of(request)):
                if len(text) == 7 and len(data) > 1:
                    data[place]["embedding"] = []
            return Answer(body={"data": data})

        results, server = embed_patiently(TEXTS, script)
        assert results == ANSWERS
        assert len(server.requests) == 2
        assert [outcome.attempts for outcome in results.outcomes] == [2 if n == 7 else 1 for n in range(1, 21)]

    def test_one_that_takes_a_few_gets_a_few(self, embed_patiently):
        def script(request):
            return Answer(body={"data": vectors_for(texts_of(request)[:4])})

        results, server = embed_patiently(TEXTS, script)
        assert results == ANSWERS
        assert sorted(sizes(server)) == [4] * 5 + [20]

    def test_the_rows_of_later_packs_go_alone_at_once(self, embed_patiently, monkeypatch):
        monkeypatch.setattr(embedding_batches, "MAX_BATCH_TEXTS", 5)

        def script(request):
            return Answer(body={"data": vectors_for(texts_of(request))[:1]})

        results, server = embed_patiently([*TEXTS] * 20, script)
        assert results == ANSWERS * 20
        assert len(server.requests) < 400 + 10


@pytest.mark.parametrize("step", [Error(500), Error(504), Error(408), Answer(body={"id": 1}), Answer(body=b"<html>")])
def test_one_text_over_which_the_server_stumbles_fails_alone(embed_patiently, step):
    texts = [str(number) for number in range(64)]
    texts[37] = "bad"

    def script(request):
        return step if "bad" in texts_of(request) else None

    results, server = embed_patiently(texts, script, on_error="return")
    assert [outcome.index for outcome in results.failures] == [37]
    assert len(server.requests) <= 2 * 6 + 6 + 9  # the pack and its five halves, their good halves, the text alone


@pytest.mark.parametrize("step", [Error(500), Error(504)])
def test_what_fails_once_is_sent_again_as_it_is(embed_patiently, step):
    results, server = embed_patiently(TEXTS, [step])
    assert all(results)
    assert sizes(server) == [20, 20]


def test_the_words_of_a_server_that_stumbles_each_time_are_taken_at_once(embed_patiently):
    step = Error(500, "input (992 tokens) is too large to process. increase the physical batch size")
    results, server = embed_patiently(["bad", *map(str, range(63))], lambda r: step if "bad" in texts_of(r) else None)
    assert [outcome.index for outcome in results.failures] == [0]
    assert len(server.requests) == 1 + 2 * 6


def test_a_vector_with_nan_in_it_fails_alone(embed):
    def script(request):
        data = vectors_for(texts_of(request))
        data[1]["embedding"] = [1.0, float("nan")]
        return Answer(body={"data": data})

    results, server = embed(["a", "b", "c"], script, on_error="return")
    assert [type(result).__name__ for result in results] == ["list", "APIResponseError", "list"]
    assert "NaN or infinity" in str(results[1])
    assert len(server.requests) == 1


def test_on_error_raise_hears_of_a_text_that_fails_in_a_good_answer(embed):
    def script(request):
        return Answer(body={"data": vectors_for(texts_of(request), embedding=[float("nan")])})

    with pytest.raises(APIResponseError, match="NaN"):
        embed(["a", "b"], script, on_error="raise")


def test_max_pack_is_the_most_texts_of_a_request(embed):
    results, server = embed([str(number) for number in range(10)], max_pack=4)
    assert all(results)
    assert sorted(sizes(server)) == [2, 4, 4]


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "4", True])
def test_max_pack_is_a_number_of_texts(embed, wrong):
    with pytest.raises((TypeError, ConfigurationError), match="max_pack"):
        embed(["a", "b"], max_pack=wrong)


@pytest.mark.parametrize("step", [Error(500), Error(504)])
@pytest.mark.parametrize("max_workers", [2, 32])
@pytest.mark.slow
def test_many_packs_with_a_bad_text_each_are_no_outage(instant_waits, step, max_workers):
    texts = [f"bad {number}" if number % 20 == 7 else str(number) for number in range(1000)]

    def script(request):
        return step if any(text.startswith("bad") for text in texts_of(request)) else None

    with FakeServer(script) as server, ChatPool("e", base_url=server.base_url, max_workers=max_workers) as pool:
        results = pool.embed(texts, dimensions=4, progress=False, max_pack=20)
    assert results.fatal is None
    assert sum(outcome.ok for outcome in results.outcomes) == 950


@pytest.mark.slow
def test_a_server_that_is_down_is_not_asked_for_every_text(instant_waits):
    with FakeServer(lambda request: Error(500)) as server, ChatPool("e", base_url=server.base_url) as pool:
        results = pool.embed([str(number) for number in range(20_000)], dimensions=4, progress=False)
    assert results.fatal is not None
    assert len(server.requests) < 1000
